//! Statements other than queries: tables and views made and dropped, settings changed, plans and names shown.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_expr::LogicalPlan;
use dovetail_planner::catalog::{CatalogSnapshot, Table};
use dovetail_planner::sql::{Bound, Create};

use super::{Cancellation, QueryResult, ResultStream, Session, StatementKind, explain, settings, write};
use crate::batch::Batch;
use crate::error::{EngineError, Result};

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
    match bound {
        Bound::Query(_) => Err(EngineError::internal("a query has a stream of rows")),
        Bound::Explain { analyze, plan } => explain::explain(session, plan, snapshot, analyze, cancellation),
        Bound::CreateTableAs { name, options, .. } | Bound::CreateTable { name, options, .. }
            if write::is_there(&name, options, snapshot) =>
        {
            command(format!("table {name} exists already"))
        }
        Bound::CreateTableAs { name, query, options } => {
            let (schema, batches, rows) = rows_of(session, query, snapshot, cancellation)?;
            session.create_table(&name, nullable(&schema), batches, options)?;
            session.note_written(&name, options.temporary, rows, cancellation);
            command(format!("created {} {name} with {rows} rows", kind(options, "table")))
        }
        Bound::CreateTable { name, schema, options } => {
            session.create_table(&name, schema, vec![], options)?;
            session.note_written(&name, options.temporary, 0, cancellation);
            command(format!("created {} {name}", kind(options, "table")))
        }
        Bound::Insert { table, query, overwrite } => {
            if overwrite {
                return Err(EngineError::Unsupported(
                    "INSERT OVERWRITE".into(),
                    "Use CREATE OR REPLACE TABLE … AS SELECT … instead".into(),
                ));
            }
            let planned = inserted_into(snapshot, &table)?;
            let (_, batches, _) = rows_of(session, query, snapshot, cancellation)?;
            let is_temporary = snapshot.is_temporary(&table);
            let rows = session.insert(&planned, is_temporary, batches)?;
            session.note_written(&table, is_temporary, rows, cancellation);
            count(rows, format!("inserted {rows} rows into {table}"))
        }
        Bound::CreateView { name, options, .. } if write::is_there(&name, options, snapshot) => {
            command(format!("view {name} exists already"))
        }
        Bound::CreateView { name, sql, options } => {
            session.create_view(&name, &sql, options)?;
            command(format!("created {} {name}", kind(options, "view")))
        }
        Bound::Drop { kind, names, if_exists, temporary } => {
            for name in &names {
                let is_temporary = temporary || snapshot.is_temporary(name);
                if !session.drop(kind, name, is_temporary)? && !if_exists {
                    return Err(write::nothing_to_drop(kind, name));
                }
            }
            command(format!("dropped {}", names.join(", ")))
        }
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
        Bound::Set { name, value } => {
            session.set(&name, &value)?;
            command(format!("set {name}"))
        }
        Bound::Reset { name } => {
            session.reset(&name)?;
            command(format!("reset {name}"))
        }
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

/// The table that an INSERT was planned for.
pub fn inserted_into(snapshot: &CatalogSnapshot, name: &str) -> Result<Arc<Table>> {
    let table = snapshot.tables.get(name).cloned();
    table.ok_or_else(|| EngineError::internal("an INSERT into a table that the plan does not know"))
}

/// A table made from a query takes nulls later even where the query's own rows have none.
pub fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

/// What was made, in words.
fn kind(options: Create, word: &str) -> String {
    if options.temporary { format!("temporary {word}") } else { word.into() }
}

fn show(session: &Session, name: &str) -> Result<QueryResult> {
    let all = session.settings();
    let rows: Vec<Vec<String>> = all
        .iter()
        .filter(|(n, _)| name == "all" || name == *n)
        .map(|(n, v)| vec![n.to_string(), v.clone()])
        .collect();
    if rows.is_empty() {
        let known: Vec<&str> = all.iter().map(|s| s.0).collect();
        return Err(settings::unknown(name, &known));
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
