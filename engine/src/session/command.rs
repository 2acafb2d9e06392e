//! Statements other than queries: tables and views made and dropped, plans and names shown.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_expr::LogicalPlan;
use dovetail_planner::catalog::CatalogSnapshot;
use dovetail_planner::sql::{Bound, DropKind};

use super::{Cancellation, QueryResult, ResultStream, Session, StatementKind, explain};
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::memory::readable;

/// Names of the columns of statements that show something.
const SHOW_TABLES: &[&str] = &["table_name"];
const DESCRIBE: &[&str] = &["column_name", "data_type", "is_nullable"];
const SHOW: &[&str] = &["name", "value"];

/// The rows that a statement other than a query has; none if it changes something instead.
pub fn schema(bound: &Bound) -> Option<SchemaRef> {
    match bound {
        Bound::Explain { .. } => Some(explain::schema()),
        Bound::ShowTables => Some(text_columns(SHOW_TABLES)),
        Bound::Describe { .. } => Some(text_columns(DESCRIBE)),
        Bound::Show { .. } => Some(text_columns(SHOW)),
        Bound::Query(_)
        | Bound::CreateTableAs { .. }
        | Bound::CreateTable { .. }
        | Bound::Insert { .. }
        | Bound::CreateView { .. }
        | Bound::Drop { .. }
        | Bound::Copy { .. }
        | Bound::Set { .. }
        | Bound::Reset { .. } => None,
    }
}

/// Carries out a statement other than a query, whose names are resolved.
pub fn execute(
    session: &Session,
    bound: Bound,
    snapshot: &CatalogSnapshot,
    cancellation: &Cancellation,
) -> Result<ResultStream> {
    Ok(small(session, bound, snapshot, cancellation)?.into())
}

/// A statement whose result is small.
fn small(
    session: &Session,
    bound: Bound,
    snapshot: &CatalogSnapshot,
    cancellation: &Cancellation,
) -> Result<QueryResult> {
    let catalog = &session.catalog;
    match bound {
        Bound::Query(_) => Err(EngineError::internal("a query has a stream of rows")),
        Bound::Explain { analyze, plan } => explain::explain(session, plan, snapshot, analyze, cancellation),
        Bound::CreateTableAs { name, query, if_not_exists, or_replace } => {
            if if_not_exists && snapshot.tables.contains_key(&name) {
                return command(format!("table {name} exists already"));
            }
            let (schema, batches, rows) = rows_of(session, query, snapshot, cancellation)?;
            catalog.create_table(&name, nullable(&schema), batches, or_replace)?;
            session.note_written(&name, rows, cancellation);
            command(format!("created table {name} with {rows} rows"))
        }
        Bound::CreateTable { name, schema, if_not_exists, or_replace } => {
            if if_not_exists && snapshot.tables.contains_key(&name) {
                return command(format!("table {name} exists already"));
            }
            catalog.create_table(&name, schema, vec![], or_replace)?;
            session.note_written(&name, 0, cancellation);
            command(format!("created table {name}"))
        }
        Bound::Insert { table, query, overwrite } => {
            if overwrite {
                return Err(EngineError::Unsupported(
                    "INSERT OVERWRITE".into(),
                    "Use CREATE OR REPLACE TABLE … AS SELECT … instead".into(),
                ));
            }
            let (_, batches, _) = rows_of(session, query, snapshot, cancellation)?;
            let rows = catalog.insert(&table, batches, &session.memory)?;
            session.note_written(&table, rows, cancellation);
            count(rows, format!("inserted {rows} rows into {table}"))
        }
        Bound::CreateView { name, sql, or_replace } => {
            catalog.create_view(&name, &sql, or_replace)?;
            command(format!("created view {name}"))
        }
        Bound::Drop { kind, names, if_exists } => drop_all(session, kind, &names, if_exists),
        Bound::ShowTables => {
            let names = session.tables()?.into_iter().map(|t| t.name);
            strings(SHOW_TABLES, names.map(|n| vec![n]).collect())
        }
        Bound::Describe { plan } => {
            let fields = plan.schema().fields();
            let rows = fields.iter().map(|f| {
                vec![
                    f.name().clone(),
                    f.data_type().to_string(),
                    if f.is_nullable() { "YES" } else { "NO" }.into(),
                ]
            });
            strings(DESCRIBE, rows.collect())
        }
        Bound::Show { name } => show(session, &name),
        Bound::Copy { .. } => Err(EngineError::Unsupported(
            "COPY".into(),
            "Run the query with `--format csv` (or tsv, json, ndjson) and send the output to a file".into(),
        )),
        Bound::Set { name, .. } | Bound::Reset { name } => Err(EngineError::Unsupported(
            format!("changing the setting '{name}'"),
            "Settings are given when Dovetail starts: see `dovetail --help`".into(),
        )),
    }
}

fn rows_of(
    session: &Session,
    query: LogicalPlan,
    snapshot: &CatalogSnapshot,
    cancellation: &Cancellation,
) -> Result<(SchemaRef, Vec<Batch>, u64)> {
    let ran = session.run(&session.plan(query, snapshot)?, None, cancellation)?;
    let schema = ran.schema.clone();
    let batches: Vec<Batch> = ran.map(|b| b.map(Batch::from)).collect::<Result<_>>()?;
    let rows = batches.iter().map(|b| b.rows as u64).sum();
    Ok((schema, batches, rows))
}

/// A table made from a query takes nulls later even where the query's own rows have none.
pub fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

fn drop_all(session: &Session, kind: DropKind, names: &[String], if_exists: bool) -> Result<QueryResult> {
    for name in names {
        let (word, dropped) = match kind {
            DropKind::Table => ("table", session.catalog.drop_table(name)?),
            DropKind::View => ("view", session.catalog.drop_view(name)),
        };
        if !dropped && !if_exists {
            return Err(EngineError::execution(format!(
                "there is no {word} named '{name}' to drop; DROP {} IF EXISTS is silent then",
                word.to_uppercase()
            )));
        }
    }
    command(format!("dropped {}", names.join(", ")))
}

/// The session's settings, by name.
pub fn settings(session: &Session) -> [(&'static str, String); 4] {
    [
        ("threads", session.options.threads.to_string()),
        ("partitions", session.options.partitions.map_or("automatic".into(), |n| n.to_string())),
        ("memory_limit", readable(session.memory.limit_bytes() as u64)),
        ("scheduler", format!("{:?}", session.options.scheduler).to_lowercase()),
    ]
}

fn show(session: &Session, name: &str) -> Result<QueryResult> {
    let settings = settings(session);
    let rows: Vec<Vec<String>> = settings
        .iter()
        .filter(|(n, _)| name == "all" || name == *n)
        .map(|(n, v)| vec![n.to_string(), v.clone()])
        .collect();
    if rows.is_empty() {
        let known: Vec<&str> = settings.iter().map(|s| s.0).collect();
        return Err(EngineError::execution(format!(
            "there is no setting '{name}'; the settings are {}",
            known.join(", ")
        )));
    }
    strings(SHOW, rows)
}

fn strings(names: &[&str], rows: Vec<Vec<String>>) -> Result<QueryResult> {
    let schema = text_columns(names);
    let columns: Vec<ArrayRef> = (0..names.len())
        .map(|c| Arc::new(StringViewArray::from_iter_values(rows.iter().map(|r| r[c].as_str()))) as ArrayRef)
        .collect();
    let batches = vec![RecordBatch::try_new(schema.clone(), columns)?];
    Ok(QueryResult { schema, batches, kind: StatementKind::Query })
}

fn text_columns(names: &[&str]) -> SchemaRef {
    let fields: Vec<Field> = names.iter().map(|n| Field::new(*n, DataType::Utf8View, false)).collect();
    Arc::new(Schema::new(fields))
}

/// How many rows a command has changed, from the one row that it tells it in.
pub fn changed(batch: &RecordBatch) -> u64 {
    let counts = batch.columns().first().and_then(|c| c.as_any().downcast_ref::<UInt64Array>());
    counts.map_or(0, |c| c.iter().flatten().sum())
}

fn count(rows: u64, message: String) -> Result<QueryResult> {
    let schema = Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]));
    let batches = vec![RecordBatch::try_new(schema.clone(), vec![Arc::new(UInt64Array::from(vec![rows]))])?];
    Ok(QueryResult { schema, batches, kind: StatementKind::Command { message } })
}

fn command(message: String) -> Result<QueryResult> {
    let schema = Arc::new(Schema::empty());
    Ok(QueryResult { schema, batches: vec![], kind: StatementKind::Command { message } })
}
