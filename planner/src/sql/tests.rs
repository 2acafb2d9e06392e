//! Messages and refusals, as a user sees them.

use crate::catalog::CatalogSnapshot;
use crate::testing::{catalog, query};

fn tables() -> CatalogSnapshot {
    catalog(
        "-- 1000 rows
         CREATE TABLE t (a INTEGER, b BIGINT, c VARCHAR, d DECIMAL(10,2), e DATE, l INTEGER[], f DOUBLE);
         -- 100 rows
         CREATE TABLE u (a INTEGER, x INTEGER NOT NULL, \"UserID\" BIGINT, s STRUCT(p INTEGER, q VARCHAR))",
    )
}

fn error(sql: &str) -> String {
    query(sql, &tables()).map(|_| String::new()).unwrap_err().to_string()
}

#[test]
fn a_syntax_error_shows_its_place() {
    let text = error("SELECT a,\nFROM WHERE t");
    assert!(text.contains('^'), "{text}");
}

#[test]
fn unknown_names_come_with_the_nearest_known_one() {
    let text = error("SELECT * FROM tt");
    assert!(text.contains("tt") && text.contains("did you mean") && text.contains('t'), "{text}");
    let text = error("SELECT userid, zz FROM u");
    assert!(text.contains("zz"), "{text}");
    let text = error("SELECT summ(a) FROM t");
    assert!(text.contains("sum"), "{text}");
}

#[test]
fn clauses_that_would_be_ignored_are_refused() {
    for sql in
        ["SELECT * FROM t TABLESAMPLE (10 PERCENT)", "SELECT * FROM t FOR UPDATE", "SELECT TOP 3 a FROM t"]
    {
        let text = error(sql);
        assert!(text.contains("not supported") || text.contains("syntax error"), "{sql}: {text}");
    }
}

#[test]
fn from_alone_is_a_query() {
    let plan = query("FROM t", &tables()).unwrap();
    assert_eq!(plan.root.schema.fields().len(), 7);
}
