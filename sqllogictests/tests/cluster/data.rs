//! The tables, the queries, and what a single process answers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow::util::pretty::pretty_format_batches;
use dovetail_engine::{QueryResult, Session, SessionOptions};
use sqllogictest::{DefaultColumnType, Record, parse_file};

const SCALE_FACTOR: f64 = 0.1;

/// Queries of TPC-H with large shuffles, by number.
pub const QUERIES: [usize; 5] = [5, 9, 13, 18, 21];

/// Where the tables are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-tpch-sf{SCALE_FACTOR}"))
}

/// Writes the tables, once.
pub fn write() {
    dovetail_cli::demo::data::write(&folder(), SCALE_FACTOR, 2, &|| false).expect("the data can be written");
}

/// A session over them.
pub fn session() -> Arc<Session> {
    let options = SessionOptions { threads: 2, ..SessionOptions::default() };
    Arc::new(Session::open(&folder().to_string_lossy(), options).expect("the data can be opened"))
}

/// The text of a query, by its number in TPC-H.
pub fn query(number: usize) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt/tpch/queries.slt");
    let records = parse_file::<DefaultColumnType>(file).expect("the file is well formed");
    let mut queries = records.into_iter().filter_map(|r| match r {
        Record::Query { sql, .. } => Some(sql),
        _ => None,
    });
    queries.nth(number - 1).expect("all 22 are there")
}

/// What a single process answers. Computed once.
pub fn expected(sql: &str) -> String {
    static KNOWN: Mutex<Vec<(String, String)>> = Mutex::new(vec![]);
    let mut known = KNOWN.lock().unwrap();
    if let Some((_, answer)) = known.iter().find(|(q, _)| q == sql) {
        return answer.clone();
    }
    let answer = text(&session().execute(sql).expect("a single process answers"));
    known.push((sql.to_owned(), answer.clone()));
    answer
}

/// A result, to be compared.
pub fn text(result: &QueryResult) -> String {
    pretty_format_batches(&result.batches).expect("results can be printed").to_string()
}
