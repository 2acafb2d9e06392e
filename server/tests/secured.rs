//! Tokens and TLS, between a real server and real clients.

mod served;

use dovetail_engine::StatementKind;
use dovetail_server::flight_sql::Limits;
use dovetail_server::remote::RemoteSession;
use dovetail_server::security::{Secret, Security, Tls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use served::Served;
use tonic::Code;

const TOKEN: &str = "a-token-that-nobody-guesses";

/// An authority, and somebody it has signed.
struct Signed {
    authority: Vec<u8>,
    identity: (Vec<u8>, Secret),
}

fn signed() -> Signed {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority_cert = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let cert =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    Signed {
        authority: authority_cert.pem().into_bytes(),
        identity: (cert.pem().into_bytes(), Secret::new(key.serialize_pem())),
    }
}

fn served(tls: Option<Tls>, token: Option<&str>) -> Served {
    Served::with(
        Security { tls, token: token.map(Secret::new), ..Security::default() },
        Limits::default(),
        None,
    )
}

/// What a client with this security is told.
fn answer(served: &Served, security: &Security) -> Result<(), String> {
    let remote = RemoteSession::connect(&served.address, security).map_err(|e| e.to_string())?;
    let result = remote.stream("SELECT 1").map_err(|e| e.to_string())?;
    assert_eq!(result.kind, StatementKind::Query);
    assert_eq!(result.map(|b| b.unwrap().num_rows()).sum::<usize>(), 1);
    Ok(())
}

#[test]
fn only_the_right_token_is_let_in() {
    let served = served(None, Some(TOKEN));
    let with = |token: Option<&str>| {
        answer(&served, &Security { token: token.map(Secret::new), ..Security::default() })
    };
    with(Some(TOKEN)).unwrap();
    for wrong in [None, Some("another-token-than-that"), Some("")] {
        let message = with(wrong).unwrap_err();
        assert!(message.contains("token") && message.contains("--token-file"), "{message}");
        assert!(!message.contains(TOKEN), "{message}");
    }
}

#[test]
fn a_name_and_the_token_as_password_are_answered_with_a_bearer() {
    let served = served(None, Some(TOKEN));
    let mut client = served.client_without_token();
    let info = served.runtime.block_on(client.execute("SELECT 1".to_owned(), None));
    assert_eq!(served::refused(info).0, Code::Unauthenticated);
    served.runtime.block_on(client.handshake("me", "wrong")).unwrap_err();
    served.runtime.block_on(client.handshake("me", TOKEN)).unwrap();
    assert_eq!(client.token().map(String::as_str), Some(TOKEN));
    served.runtime.block_on(client.execute("SELECT 1".to_owned(), None)).unwrap();
}

#[test]
fn tls_with_and_without_client_certificates() {
    let (ours, theirs) = (signed(), signed());
    let server = Tls { identity: Some(ours.identity.clone()), authority: None };
    let open = served(Some(server.clone()), Some(TOKEN));
    let client = |identity: Option<&Signed>, authority: &Signed| Security {
        tls: Some(Tls {
            identity: identity.map(|s| s.identity.clone()),
            authority: Some(authority.authority.clone()),
        }),
        token: Some(Secret::new(TOKEN)),
        users: None,
    };
    answer(&open, &client(None, &ours)).unwrap();
    let message = answer(&open, &client(None, &theirs)).unwrap_err();
    assert!(message.contains("certificate") && message.contains("grpc+tls://localhost"), "{message}");
    let token_only = Security { token: Some(Secret::new(TOKEN)), ..Security::default() };
    assert!(answer(&open, &token_only).unwrap_err().contains("--tls-ca"));

    let strict = served(Some(Tls { authority: Some(ours.authority.clone()), ..server }), Some(TOKEN));
    answer(&strict, &client(Some(&ours), &ours)).unwrap();
    answer(&strict, &client(Some(&theirs), &ours)).unwrap_err();
    answer(&strict, &client(None, &ours)).unwrap_err();
}

#[test]
fn a_plain_client_on_a_tls_port_is_told_so() {
    let ours = signed();
    let served = served(Some(Tls { identity: Some(ours.identity), authority: None }), Some(TOKEN));
    let plain = served.address.to_string().replace("grpc+tls", "grpc").parse().unwrap();
    let outcome = RemoteSession::connect(&plain, &Security::default());
    let message = match outcome {
        Ok(remote) => remote.stream("SELECT 1").err().unwrap().to_string(),
        Err(e) => e.to_string(),
    };
    assert!(message.contains("localhost"), "{message}");
}
