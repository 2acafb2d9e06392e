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
fn a_right_password_is_hashed_once_and_a_wrong_one_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let users = users(&folder);
    let sign_in = |name: &str, password: &str| users.sign_in(name, &Secret::new(password));
    sign_in("anna", "password of anna").unwrap();
    {
        // Nobody can have a password hashed meanwhile.
        let _all: Vec<_> = (0..checks::CHECKS_MAX).map(|_| users.checks.begin().unwrap()).collect();
        assert_eq!(sign_in("anna", "password of anna").unwrap().role, Role::ReadWrite);
    }
    sign_in("anna", "password of bert").unwrap_err();
    for _ in 0..attempts::FAILURES_MAX {
        sign_in("anna", "wrong").unwrap_err();
    }
    let right = sign_in("anna", "password of anna").unwrap_err();
    assert!(right.message().contains("too many"), "guesses are counted whatever is known: {right}");
    // The file as it is now, not as it was.
    let file = folder.path().join("users");
    add(&file, "anna", Role::ReadOnly, &Secret::new("another password")).unwrap();
    let users = Users::read(&file).unwrap();
    users.sign_in("anna", &Secret::new("password of anna")).unwrap_err();
    assert_eq!(users.sign_in("anna", &Secret::new("another password")).unwrap().role, Role::ReadOnly);
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
fn names_that_are_not_there_take_nothing_from_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let users = users(&folder);
    let sign_in = |name: &str, password: &str| users.sign_in(name, &Secret::new(password));
    let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
    // Neither costs a hash, nor is it counted.
    for i in 0..20_000 {
        sign_in(&format!("nobody {i}"), &long).unwrap_err();
    }
    for _ in 0..=attempts::FAILURES_MAX {
        sign_in("anna", &long).unwrap_err();
        sign_in(&"anna".repeat(10_000), "wrong").unwrap_err();
    }
    sign_in("anna", "password of anna").unwrap();
    // An unknown name is told the same as a known one, also after many attempts.
    let after_many = |name: &str| {
        let told: Vec<String> =
            (0..=attempts::FAILURES_MAX).map(|_| sign_in(name, "wrong").unwrap_err().to_string()).collect();
        told.last().cloned().unwrap()
    };
    assert_eq!(after_many("nobody"), after_many("anna"));
    sign_in("bert", "password of bert").unwrap();
}

#[test]
fn who_signs_in_while_others_do_waits_a_moment() {
    let folder = tempfile::tempdir().unwrap();
    let users = users(&folder);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..12)
            .map(|_| scope.spawn(|| users.sign_in("anna", &Secret::new("password of anna")).map(|_| ())))
            .collect();
        all.into_iter().for_each(|one| one.join().unwrap().unwrap());
    });
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
fn a_user_has_so_many_tokens_and_takes_none_from_others() {
    let [anna, bert] =
        ["anna", "bert"].map(|n| Identity { name: n.into(), role: Role::ReadWrite, sign_in: None });
    let tokens = Tokens::new(TOKEN_AGE);
    let of_bert = tokens.issue(&bert).unwrap();
    let of_anna: Vec<String> =
        (0..=tokens::TOKENS_OF_USER_MAX).map(|_| tokens.issue(&anna).unwrap()).collect();
    assert_eq!(tokens.holder(&of_anna[0]), None);
    let name = |token: &String| tokens.holder(token).map(|holder| holder.name);
    assert!(of_anna[1..].iter().all(|token| name(token).as_ref() == Some(&anna.name)));
    assert_eq!(name(&of_bert), Some(bert.name));
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
    let (_, hash) = text.lines().next().unwrap().split_once(':').unwrap();
    let nameless = [format!(":{hash}"), format!("a b:{hash}"), format!("{}:{hash}", "x".repeat(65))];
    let bad = ["", "anna", "anna:king:hash", "anna:read-only:hash", &format!("{text}{text}")];
    for bad in bad.into_iter().chain(nameless.iter().map(String::as_str)) {
        std::fs::write(&file, bad).unwrap();
        let e = Users::read(&file).unwrap_err().to_string();
        assert!(e.contains("--users") && !e.contains("argon2id$"), "{e}");
    }
}
