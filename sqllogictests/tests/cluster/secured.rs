//! TLS and tokens between the server and its workers: with them queries run, without them a worker is told what is
//! missing and ends.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dovetail_server::cluster::Recovery;
use dovetail_server::security::SecurityFiles;
use dovetail_sqllogictests::cluster::Cluster;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sqllogictest::harness::{Failed, Trial};

use super::data::{query, session, text};
use super::run::{Outcome, must_be_right};

const TOKEN: &str = "a-token-that-nobody-guesses";
const ANOTHER_TOKEN: &str = "another-token-than-that-one";

/// A worker that is refused says so and ends.
const ENDS_AFTER_MAX: Duration = Duration::from_secs(20);

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("a cluster with TLS and a token", answers),
        Trial::test("workers without what a cluster asks for", refused),
        Trial::test("a worker that others can reach without protection", unprotected),
    ]
}

/// An authority with a certificate that it has signed, and a token, as files.
fn files(folder: &Path, name: &str, token: &str) -> anyhow::Result<SecurityFiles> {
    let mut authority = CertificateParams::new(vec![])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let authority_cert = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
    let write = |kind: &str, text: String| -> std::io::Result<Option<PathBuf>> {
        let path = folder.join(format!("{name}-{kind}"));
        std::fs::write(&path, text)?;
        Ok(Some(path))
    };
    Ok(SecurityFiles {
        cert: write("cert.pem", cert.pem())?,
        key: write("key.pem", key.serialize_pem())?,
        authority: write("ca.pem", authority_cert.pem())?,
        token: write("token", token.to_owned())?,
        users: None,
    })
}

fn answers() -> Result<(), Failed> {
    let (folder, sql) = (tempfile::tempdir()?, query(5));
    let session = session();
    let security = files(folder.path(), "ours", TOKEN)?;
    let mut cluster = Cluster::without_workers(&session, security, Recovery::Off)?;
    for _ in 0..2 {
        cluster.add(&[])?;
    }
    cluster.wait_for_slots(2)?;
    let result = session.execute(&sql).map_err(|e| e.to_string())?;
    Ok(must_be_right(&Outcome::Answered(text(&result)), &sql)?)
}

fn refused() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let session = session();
    let ours = files(folder.path(), "ours", TOKEN)?;
    let theirs = files(folder.path(), "theirs", ANOTHER_TOKEN)?;
    let cluster = Cluster::without_workers(&session, ours.clone(), Recovery::Off)?;
    let stranger =
        SecurityFiles { authority: ours.authority.clone(), token: ours.token.clone(), ..theirs.clone() };
    let no_token = SecurityFiles { token: None, ..ours.clone() };
    let wrong_token = SecurityFiles { token: theirs.token.clone(), ..ours.clone() };
    let wrong_authority = SecurityFiles { authority: theirs.authority, ..ours.clone() };
    let no_authority = SecurityFiles { token: ours.token, ..SecurityFiles::default() };
    for (what, security, word) in [
        ("no token", no_token, "token"),
        ("another token", wrong_token, "token"),
        ("another authority's certificate", stranger, "TLS has failed"),
        ("trust in another authority", wrong_authority, "TLS has failed"),
        ("trust in no authority", no_authority, "--tls-ca"),
    ] {
        let told = how_it_ends(&mut with_files(cluster.command(cluster.url(), &[])?, &security))?;
        let is_clear = told.contains(word) && told.contains(cluster.url());
        let is_secret = told.contains(TOKEN) || told.contains(ANOTHER_TOKEN) || told.contains("PRIVATE");
        if !is_clear || is_secret {
            return Err(format!("with {what} it says: {told}").into());
        }
    }
    match cluster.slots() {
        0 => Ok(()),
        slots => Err(format!("{slots} workers were let in").into()),
    }
}

fn unprotected() -> Result<(), Failed> {
    let session = session();
    let cluster = Cluster::without_workers(&session, SecurityFiles::default(), Recovery::Off)?;
    let told = how_it_ends(&mut cluster.command(cluster.url(), &["--listen", "0.0.0.0:0"])?)?;
    match told.contains("0.0.0.0:0 can be reached from other machines") && told.contains("--insecure") {
        true => Ok(()),
        false => Err(format!("it says: {told}").into()),
    }
}

fn with_files(mut command: Command, files: &SecurityFiles) -> Command {
    let SecurityFiles { cert, key, authority, token, users: _ } = files;
    let flags = [("--tls-cert", cert), ("--tls-key", key), ("--tls-ca", authority), ("--token-file", token)];
    for (flag, file) in flags {
        if let Some(file) = file {
            command.arg(flag).arg(file);
        }
    }
    command
}

/// What a worker says on standard error when it ends, which must not be well.
fn how_it_ends(command: &mut Command) -> Result<String, String> {
    let mut worker = command.stderr(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    let start = Instant::now();
    let status = loop {
        match worker.try_wait() {
            Ok(Some(status)) => break Some(status),
            _ if start.elapsed() > ENDS_AFTER_MAX => break None,
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    // It may have ended.
    let _ = worker.kill();
    let mut told = String::new();
    worker.stderr.take().expect("it is piped").read_to_string(&mut told).map_err(|e| e.to_string())?;
    let _ = worker.wait();
    match status {
        Some(status) if status.success() => Err(format!("it ends well, and says: {told}")),
        Some(_) => Ok(told),
        None => Err(format!("it does not end, and says: {told}")),
    }
}
