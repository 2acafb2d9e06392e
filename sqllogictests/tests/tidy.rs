//! Is the house in order: crate edges, file sizes, module docs, words that must not stay.
//!
//! The rules are those of the README's map of the crates; a new edge or dependency is a decision, made
//! here in the open.

use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates a crate may use.
const EDGES: &[(&str, &[&str])] = &[
    ("planner", &[]),
    ("shuffle", &[]),
    ("engine", &["planner", "shuffle"]),
    ("server", &["engine", "planner", "shuffle"]),
    ("cli", &["engine", "planner", "server"]),
    ("sqllogictests", &["planner", "shuffle", "engine", "server", "cli"]),
];

/// Dependencies that would break a crate's promise: the planner does no I/O and starts no threads; no
/// operator is borrowed.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("planner", &["tokio", "object_store", "parquet", "futures", "parking_lot"]),
    ("shuffle", &["sqlparser", "datafusion-expr", "datafusion-sql", "object_store", "parquet"]),
    (
        "engine",
        &["datafusion", "datafusion-physical-plan", "datafusion-sql", "datafusion-optimizer", "tonic"],
    ),
];

const LINES_MAX: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").to_path_buf()
}

/// Names under `[dependencies]` of a crate's manifest.
fn dependencies(name: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
    text.split("\n[")
        .filter(|section| section.starts_with("dependencies]"))
        .flat_map(|section| section.lines().skip(1))
        .filter_map(|line| line.split(['=', '.']).next())
        .map(|name| name.trim().to_string())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|n| n != "target") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = vec![];
    for (name, _) in EDGES {
        sources(&root().join(name), &mut found);
    }
    assert!(found.len() > 50, "only {} source files were found", found.len());
    found
}

#[test]
fn crates_use_only_what_is_below_them() {
    for (name, allowed) in EDGES {
        for dependency in dependencies(name) {
            if let Some(ours) = dependency.strip_prefix("dovetail-") {
                assert!(allowed.contains(&ours), "{name} must not depend on {ours}");
            }
        }
    }
    for (name, forbidden) in FORBIDDEN {
        let dependencies = dependencies(name);
        assert!(!dependencies.is_empty(), "{name} has no dependencies at all: is the manifest read right?");
        for dependency in dependencies {
            assert!(!forbidden.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn files_are_one_thing_and_say_what() {
    let mut bad = vec![];
    for path in all_sources() {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > LINES_MAX {
            bad.push(format!("{}: {lines} lines, at most {LINES_MAX}", path.display()));
        }
        if !text.starts_with("//!") {
            bad.push(format!("{}: does not open with `//!` docs", path.display()));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn nothing_is_left_half_done() {
    // Spelt in two halves, so that this file does not find itself.
    let words: Vec<String> =
        [("todo", "!("), ("unimplemented", "!("), ("dbg", "!("), ("FIX", "ME"), ("#[ign", "ore")]
            .iter()
            .map(|(a, b)| format!("{a}{b}"))
            .collect();
    let mut bad = vec![];
    for path in all_sources() {
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            for word in &words {
                if line.contains(word.as_str()) {
                    bad.push(format!("{}:{}: {word}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn names_say_what_is_inside() {
    let vague = ["utils", "util", "helpers", "helper", "common", "manager", "misc"];
    for path in all_sources() {
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let folder = path.parent().and_then(|p| p.file_name()).and_then(|s| s.to_str()).unwrap_or_default();
        assert!(!vague.contains(&stem) && !vague.contains(&folder), "{}: a vague name", path.display());
    }
}
