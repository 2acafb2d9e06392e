//! Passwords, tokens, and the file they come from.

use std::time::Duration;

use super::*;
use tonic::Code;

fn users(folder: &tempfile::TempDir) -> Users {
    let file = folder.path().join("users");
    for (name, role) in [("anna", Role::ReadWrite), ("bert", Role::ReadOnly)] {
        assert_eq!(add(&file, name, role, &Secret::new(format!("password of {name}"))).unwrap(), Added::New);
    }
    Users::read(&file).unwrap()
}

#[test]
fn the_right_password_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let users = users(&folder);
    let sign_in = |name: &str, password: &str| users.sign_in(name, &Secret::new(password));
    assert_eq!(sign_in("anna", "password of anna").unwrap().role, Role::ReadWrite);
    let bert = sign_in("bert", "password of bert").unwrap();
    assert_eq!(bert.may_write().unwrap_err().code(), Code::PermissionDenied);
    let wrong = [("anna", "password of bert"), ("anna", ""), ("nobody", "password of anna"), ("", "")];
    let told: Vec<String> =
        wrong.iter().map(|(n, p)| sign_in(n, p).unwrap_err().message().to_owned()).collect();
    // Nobody learns which names there are.
    assert!(told.iter().all(|m| *m == told[0]), "{told:?}");
}

#[test]
fn many_wrong_passwords_end_the_trying() {
    let folder = tempfile::tempdir().unwrap();
    let users = users(&folder);
    let sign_in = |name: &str, password: &str| users.sign_in(name, &Secret::new(password));
    for _ in 0..attempts::FAILURES_MAX {
        sign_in("anna", "wrong").unwrap_err();
    }
    let right = sign_in("anna", "password of anna").unwrap_err();
    assert!(right.message().contains("too many"), "{right}");
    sign_in("bert", "password of bert").unwrap();
}

#[test]
fn tokens_end() {
    let anna = Identity { name: "anna".into(), role: Role::ReadWrite, sign_in: None };
    let (good, ended) = (Tokens::new(TOKEN_AGE), Tokens::new(Duration::ZERO));
    let token = good.issue(&anna).unwrap();
    assert_eq!(good.holder("another"), None);
    let ended_token = ended.issue(&anna).unwrap();
    let found = Some(Identity { sign_in: Some(1), ..anna });
    assert_eq!((good.holder(&token), ended.holder(&ended_token)), (found, None));
    good.end(1);
    assert_eq!(good.holder(&token), None);
}

#[test]
fn the_file_has_hashes_and_is_its_owners() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    users(&folder);
    let file = folder.path().join("users");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("bert:read-only:$argon2id$") && !text.contains("password"), "{text}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = add(&file, "bert", Role::ReadWrite, &Secret::new("another password")).unwrap();
    assert_eq!(again, Added::Changed);
    assert_eq!(Users::read(&file).unwrap().all["bert"].role, Role::ReadWrite);
    for (name, password) in
        [("", "long enough"), ("a:b", "long enough"), ("a b", "long enough"), ("c", "short")]
    {
        assert!(add(&file, name, Role::ReadOnly, &Secret::new(password)).is_err(), "{name}");
    }
    for bad in ["", "anna", "anna:king:hash", "anna:read-only:hash", &format!("{text}{text}")] {
        std::fs::write(&file, bad).unwrap();
        let e = Users::read(&file).unwrap_err().to_string();
        assert!(e.contains("--users") && !e.contains("argon2id$"), "{e}");
    }
}
