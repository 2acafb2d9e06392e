//! The suite of `server/tests/python`: Python's ADBC driver against the binary as a server.
//!
//! It needs Python 3 with `venv`, and a package index for its requirements; both are kept in the target folder.
//! Where one is missing, the test says so and passes, since a user's machine need not have them; with
//! DOVETAIL_PYTHON=required, as in `.ci/run` where the packages can be had, it fails.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// Says that the suite must run.
const REQUIRED: &str = "DOVETAIL_PYTHON";

fn suite() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/tests/python")
}

/// An authority, and a server that it has signed.
fn write_certificates(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    fs::write(folder.join("authority.pem"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let server =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    fs::write(folder.join("server.pem"), server.pem()).unwrap();
    fs::write(folder.join("server-key.pem"), key.serialize_pem()).unwrap();
}

/// What a program printed, or why it could not be run.
fn outcome(program: &Path, words: &[&str]) -> Result<String, String> {
    let told =
        |o: &Output| format!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr));
    match Command::new(program).args(words).output() {
        Ok(output) if output.status.success() => Ok(told(&output)),
        Ok(output) => Err(format!("{} {}: {}", program.display(), words.join(" "), told(&output))),
        Err(e) => Err(format!("{} cannot be run: {e}", program.display())),
    }
}

/// A Python with the requirements: the one of the last time if they have not changed.
fn python() -> Result<PathBuf, String> {
    let requirements = suite().join("requirements.txt");
    let wanted = fs::read_to_string(&requirements).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let (python, installed) = (folder.join("bin/python"), folder.join("installed.txt"));
    if fs::read_to_string(&installed).is_ok_and(|there| there == wanted) && outcome(&python, &["-V"]).is_ok()
    {
        return Ok(python);
    }
    let place = folder.to_str().expect("the target folder's path is UTF-8");
    outcome(Path::new("python3"), &["-m", "venv", "--clear", place])?;
    let list = requirements.to_str().expect("the source folder's path is UTF-8");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", list];
    outcome(&python, &install)?;
    fs::write(&installed, wanted).unwrap();
    Ok(python)
}

#[test]
fn pythons_driver_does_everything() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) if std::env::var(REQUIRED).is_ok_and(|v| v == "required") => panic!("{reason}"),
        Err(reason) => {
            // Past the test harness, which shows nothing of a test that passes.
            let _ = writeln!(std::io::stderr(), "skipped: the Python suite, since {reason}");
            return;
        }
    };
    let certificates = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-certificates");
    write_certificates(&certificates);
    let output = Command::new(python)
        .args(["-B", "-m", "unittest", "discover", "--start-directory"])
        .arg(suite())
        .env("DOVETAIL", env!("CARGO_BIN_EXE_dovetail"))
        .env("DOVETAIL_CERTIFICATES", certificates)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let ran = told.lines().find_map(|l| l.strip_prefix("Ran ")?.split(' ').next()?.parse::<u32>().ok());
    assert!(ran.is_some_and(|n| n >= 30) && !told.contains("skipped"), "{told}");
}
