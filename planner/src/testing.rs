//! What tests of this crate share: small catalogs from DDL, and queries planned from text.

use std::sync::Arc;

use crate::catalog::{CatalogSnapshot, FileRef, Table, TableData, TableStatistics};
use crate::sql::{self, Bound};

/// The tables of a script of `-- n rows` and CREATE TABLE.
pub(crate) fn catalog(ddl: &str) -> CatalogSnapshot {
    let mut catalog = CatalogSnapshot::default();
    let counts = ddl
        .lines()
        .filter_map(|l| l.trim().strip_prefix("-- ")?.strip_suffix(" rows")?.parse::<u64>().ok())
        .collect::<Vec<_>>();
    let statements = sql::parse(ddl).unwrap();
    assert_eq!(counts.len(), statements.len(), "every table has its rows");
    for (statement, rows) in statements.iter().zip(counts) {
        let Bound::CreateTable { name, schema, .. } = sql::bind(statement, &catalog).unwrap() else {
            panic!("not a table: {}", statement.text);
        };
        let file =
            FileRef { url: format!("file:///{name}.parquet"), size_bytes: rows * 64, etag: None, rows };
        let table = Table {
            name: name.clone(),
            schema,
            data: TableData::Parquet(vec![file]),
            statistics: TableStatistics { rows: Some(rows), columns: vec![] },
        };
        catalog.tables.insert(name, Arc::new(table));
    }
    catalog
}

/// Two tables with a column of every common type.
pub(crate) fn small() -> CatalogSnapshot {
    catalog(
        "-- 1000 rows
         CREATE TABLE t (a INTEGER, b BIGINT, c VARCHAR, d DECIMAL(10,2), e DATE, l INTEGER[], f DOUBLE);
         -- 100 rows
         CREATE TABLE u (a INTEGER, x INTEGER NOT NULL, \"UserID\" BIGINT, s STRUCT(p INTEGER, q VARCHAR))",
    )
}

/// The one statement of a text, planned as a query.
pub(crate) fn query(sql: &str, catalog: &CatalogSnapshot) -> crate::Result<crate::physical::Query> {
    let statements = sql::parse(sql)?;
    let [statement] = statements.as_slice() else {
        panic!("one statement expected: {sql}");
    };
    crate::plan_query(sql::plan(statement, catalog)?, catalog)
}
