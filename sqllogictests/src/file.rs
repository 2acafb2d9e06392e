//! One file under one configuration: every record runs, every failure is told, not only the first.

use std::path::Path;

use sqllogictest::{DefaultColumnType, Normalizer, Record, Runner, parse_file, strict_column_validator};

use crate::database::{Configuration, Database};

/// Failures of one file told in full; the rest are counted.
const TOLD: usize = 10;

/// Runs a file against a fresh session over `folder`, or over nothing.
pub fn run(path: &Path, configuration: Configuration, folder: Option<&str>) -> Result<(), String> {
    let records = parse_file::<DefaultColumnType>(path).map_err(|e| e.to_string())?;
    let database = Database::open(configuration, folder).map_err(|e| format!("{e:#}"))?;
    let mut database = Some(database);
    let mut runner = Runner::new(|| {
        // One session for each file: named connections do not occur in the suite.
        let database = database.take().expect("invariant: the suite uses one connection a file");
        async move { Ok(database) }
    });
    runner.with_validator(rows_are_equal);
    runner.with_column_validator(strict_column_validator);
    let mut failures = vec![];
    for record in records {
        if matches!(record, Record::Halt { .. }) {
            break;
        }
        if let Err(e) = runner.run(record) {
            failures.push(e.to_string());
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    let count = failures.len();
    failures.truncate(TOLD);
    Err(format!("{count} records failed ({} shown)\n\n{}", failures.len(), failures.join("\n")))
}

/// Exactly the same rows, nothing trimmed.
fn rows_are_equal(_: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    actual.len() == expected.len() && actual.iter().zip(expected).all(|(a, e)| a.concat() == *e)
}
