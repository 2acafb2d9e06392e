//! Files in, settings for both ends out; secrets shown to nobody.

use std::path::PathBuf;

use tonic::metadata::MetadataMap;

use super::*;

const TOKEN: &str = "0123456789abcdef0123";

/// A certificate of its own authority, its key, and a token, as files.
fn files(dir: &tempfile::TempDir) -> SecurityFiles {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    SecurityFiles {
        cert: write("cert.pem", made.cert.pem()),
        key: write("key.pem", made.signing_key.serialize_pem()),
        authority: write("ca.pem", made.cert.pem()),
        token: write("token", format!("{TOKEN}\n")),
        users: None,
    }
}

#[test]
fn files_make_both_ends() {
    let dir = tempfile::tempdir().unwrap();
    let security = files(&dir).read().unwrap();
    assert!(security.server_tls().unwrap().is_some());
    security.client_tls().unwrap();
    let only_ca = SecurityFiles { cert: None, key: None, ..files(&dir) }.read().unwrap();
    only_ca.client_tls().unwrap();
    assert!(only_ca.server_tls().unwrap_err().to_string().contains("--tls-cert"));
    assert!(Security::default().server_tls().unwrap().is_none());
    assert!(Security::default().client_tls().unwrap_err().to_string().contains("--tls-ca"));
}

#[test]
fn secrets_are_not_printed() {
    let dir = tempfile::tempdir().unwrap();
    let security = files(&dir).read().unwrap();
    let (server, client) = (ServerAuth::new(&security), ClientAuth::new(&security).unwrap());
    let answer = server.answer(&users::Identity::administrator(), &MetadataMap::new());
    let printed = format!("{security:?} {server:?} {client:?} {answer:?}");
    assert!(!printed.contains(TOKEN) && !printed.contains("PRIVATE"), "{printed}");
}

#[test]
fn wrong_files_are_told_with_flag_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let good = files(&dir);
    let told = |files: SecurityFiles| files.read().unwrap_err().to_string();
    let wrong = Some(dir.path().join("wrong"));
    std::fs::write(dir.path().join("wrong"), "secret").unwrap();
    for (files, flag) in [
        (SecurityFiles { cert: wrong.clone(), ..good.clone() }, "--tls-cert"),
        (SecurityFiles { key: wrong.clone(), ..good.clone() }, "--tls-key"),
        (SecurityFiles { authority: wrong.clone(), ..good.clone() }, "--tls-ca"),
        (SecurityFiles { token: wrong.clone(), ..good.clone() }, "--token-file"),
    ] {
        let message = told(files);
        assert!(message.contains(flag) && message.contains("wrong: "), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
    assert!(told(SecurityFiles { key: None, ..good.clone() }).contains("--tls-key"));
    let missing = Some(PathBuf::from("/nonexistent/token"));
    assert!(told(SecurityFiles { token: missing, ..good }).contains("/nonexistent/token"));
}

#[test]
fn only_the_token_is_let_in() {
    let security = Security { token: Some(Secret::new(TOKEN)), ..Security::default() };
    let auth = ServerAuth::new(&security);
    let check = |value: Option<&str>| {
        let mut headers = MetadataMap::new();
        if let Some(value) = value {
            headers.insert("authorization", value.parse().unwrap());
        }
        auth.check(&headers).map(drop).map_err(|s| s.code())
    };
    assert_eq!(check(Some(&format!("Bearer {TOKEN}"))), Ok(()));
    assert_eq!(check(Some(&format!("bearer {TOKEN} "))), Ok(()));
    // "me:0123456789abcdef0123"
    assert_eq!(check(Some("Basic bWU6MDEyMzQ1Njc4OWFiY2RlZjAxMjM=")), Ok(()));
    let refused = Err(tonic::Code::Unauthenticated);
    let longer = format!("Bearer {TOKEN}4");
    for wrong in
        [None, Some(TOKEN), Some("Bearer "), Some("Bearer x"), Some(&longer), Some("Basic !"), Some("")]
    {
        assert_eq!(check(wrong), refused, "{wrong:?}");
    }
    assert_eq!(
        ServerAuth::new(&Security::default()).check(&MetadataMap::new()).map(drop).map_err(|s| s.code()),
        Ok(())
    );
}

#[test]
fn an_open_address_needs_both_or_insistence() {
    let dir = tempfile::tempdir().unwrap();
    let full = files(&dir).read().unwrap();
    let open: SocketAddr = "0.0.0.0:1".parse().unwrap();
    assert!(full.allows(&open, false).is_ok());
    for less in [
        Security::default(),
        Security { tls: None, ..full.clone() },
        Security { token: None, ..full.clone() },
    ] {
        let message = less.allows(&open, false).unwrap_err().to_string();
        for flag in ["--tls-cert", "--token-file", "--insecure"] {
            assert!(message.contains(flag), "{message}");
        }
        assert!(less.allows(&open, true).is_ok());
        for loopback in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(less.allows(&loopback.parse().unwrap(), false).is_ok(), "{loopback}");
        }
    }
}
