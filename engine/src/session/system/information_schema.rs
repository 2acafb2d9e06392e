//! `information_schema`: what tables and columns there are.

use super::super::{Session, TableInfo};
use super::rows::{Column, SystemTable, Value};
use super::{AUDIT, CATALOG, SCHEMA, SCHEMAS, TABLES};
use crate::error::Result;

const SCHEMATA: &[Column] = &[("catalog_name", "VARCHAR"), ("schema_name", "VARCHAR")];

const OF_TABLES: &[Column] = &[
    ("table_catalog", "VARCHAR"),
    ("table_schema", "VARCHAR"),
    ("table_name", "VARCHAR"),
    ("table_type", "VARCHAR"),
];

const OF_VIEWS: &[Column] = &[
    ("table_catalog", "VARCHAR"),
    ("table_schema", "VARCHAR"),
    ("table_name", "VARCHAR"),
    ("view_definition", "VARCHAR"),
];

const OF_COLUMNS: &[Column] = &[
    ("table_catalog", "VARCHAR"),
    ("table_schema", "VARCHAR"),
    ("table_name", "VARCHAR"),
    ("column_name", "VARCHAR"),
    ("ordinal_position", "BIGINT"),
    ("is_nullable", "VARCHAR"),
    ("data_type", "VARCHAR"),
];

pub fn schemata(_: &Session) -> Result<SystemTable> {
    let mut table = SystemTable::new(SCHEMATA);
    for schema in [SCHEMA].iter().chain(&SCHEMAS) {
        table.push(&[Value::Text(CATALOG), Value::Text(schema)]);
    }
    Ok(table)
}

pub fn tables(session: &Session) -> Result<SystemTable> {
    let mut table = SystemTable::new(OF_TABLES);
    for known in session.tables()? {
        let (name, kind) = (&known.name, known.table_type());
        table.push(&[Value::Text(CATALOG), Value::Text(SCHEMA), Value::Text(name), Value::Text(kind)]);
    }
    for name in TABLES.iter().map(|(name, _)| *name).chain([AUDIT]) {
        let (schema, name) = name.split_once('.').unwrap_or((SCHEMA, name));
        table.push(&[Value::Text(CATALOG), Value::Text(schema), Value::Text(name), Value::Text("VIEW")]);
    }
    Ok(table)
}

pub fn views(session: &Session) -> Result<SystemTable> {
    let mut table = SystemTable::new(OF_VIEWS);
    for (name, sql) in &session.snapshot()?.views {
        table.push(&[Value::Text(CATALOG), Value::Text(SCHEMA), Value::Text(name), Value::Text(sql)]);
    }
    Ok(table)
}

pub fn columns(session: &Session) -> Result<SystemTable> {
    let mut table = SystemTable::new(OF_COLUMNS);
    for TableInfo { name, schema, .. } in session.tables()? {
        for (number, field) in schema.fields().iter().enumerate() {
            table.push(&[
                Value::Text(CATALOG),
                Value::Text(SCHEMA),
                Value::Text(&name),
                Value::Text(field.name()),
                Value::Number(number as u64 + 1),
                Value::Text(if field.is_nullable() { "YES" } else { "NO" }),
                Value::Text(&field.data_type().to_string()),
            ]);
        }
    }
    Ok(table)
}
