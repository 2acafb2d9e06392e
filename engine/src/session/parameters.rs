//! Statements with parameters: what they take, and their runs with values.
//!
//! What always holds: values reach a statement as literals of its plan, never as text; the rows that an INSERT
//! makes from many rows of parameters are there together or not at all.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::ScalarValue;
use dovetail_planner::PlanError;
use dovetail_planner::catalog::Table;
use dovetail_planner::sql::{self, Bound, ParsedStatement};

use super::statement::{one_statement, rows_schema};
use super::{Cancellation, Effect, Session, command, system, write};
use crate::audit::StatementClass;
use crate::batch::{BATCH_ROWS, Batch};
use crate::catalog::{logical_schema, replaced, same_columns};
use crate::error::{EngineError, Result};

/// A value for each parameter of a statement, in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values(pub(super) Vec<ScalarValue>);

/// Many rows of values, for one run after the other.
pub struct ValueRows {
    columns: Vec<Arc<dyn Array>>,
    rows: usize,
    next: usize,
}

/// The rows that an INSERT has made so far, and the table as it was for the first of them.
struct Inserts {
    table: Arc<Table>,
    is_temporary: bool,
    batches: Vec<RecordBatch>,
}

/// What is known of a statement before its parameters have values.
#[derive(Debug, Clone)]
pub struct Description {
    /// Of its rows; without columns if it is a command. A column that is nothing but a parameter has its type
    /// only once there is a value.
    pub schema: SchemaRef,
    /// Whether it has rows, rather than changing something.
    pub is_query: bool,
    /// What it changes.
    pub effect: Effect,
    /// Whether it reads what others have asked.
    pub reads_audit: bool,
    /// A field for each parameter; Null where nothing tells the type.
    pub parameters: SchemaRef,
}

impl ValueRows {
    /// The rows of a batch. Encodings are undone: values have the types that tables have.
    pub fn of(batch: &RecordBatch) -> Result<ValueRows> {
        let logical = logical_schema(&batch.schema());
        let columns = batch.columns().iter().zip(logical.fields());
        let columns = columns.map(|(c, f)| cast(c, f.data_type())).collect::<Result<_, _>>()?;
        Ok(ValueRows { columns, rows: batch.num_rows(), next: 0 })
    }
}

impl Iterator for ValueRows {
    type Item = Result<Values>;

    fn next(&mut self) -> Option<Result<Values>> {
        let row = self.next;
        self.next += 1;
        let value = |column: &Arc<dyn Array>| Ok(ScalarValue::try_from_array(column, row)?);
        (row < self.rows).then(|| self.columns.iter().map(value).collect::<Result<_>>().map(Values))
    }
}

impl Session {
    /// What a statement takes and gives. Nothing runs.
    pub fn describe(&self, statement: &str) -> Result<Description> {
        let one = one_statement(statement)?;
        let snapshot = self.snapshot_for(&one)?;
        let types = sql::parameter_types(&one, &snapshot)?;
        let nulls = types.iter().map(ScalarValue::try_from).collect::<Result<Vec<_>, _>>()?;
        let (schema, is_query, effect) = match sql::bind_values(&one, &snapshot, &nulls)? {
            Bound::Query(plan) => {
                let bound = plan.schema().inner().clone();
                let schema = match self.plan(plan, &snapshot) {
                    Ok(planned) => planned.lowered.schema.clone(),
                    // Some functions are planned only when their arguments are known.
                    Err(_) if !types.is_empty() => bound,
                    Err(e) => return Err(e),
                };
                (schema, true, Effect::Nothing)
            }
            other => {
                let (schema, is_query) = rows_schema(&other);
                (schema, is_query, write::effect(&other, &snapshot))
            }
        };
        let reads_audit = system::reads_audit(&snapshot);
        Ok(Description {
            schema,
            is_query,
            effect,
            reads_audit,
            parameters: Arc::new(parameter_schema(types)),
        })
    }

    /// Carries out a command once for each row of values; how many rows it changed in all. The rows that an
    /// INSERT makes are added together at the end; other commands take effect one after the other.
    ///
    /// # Errors
    /// The statement is a query; values do not fit; a run fails. An INSERT has changed nothing then.
    pub fn run_each(
        &self,
        statement: &str,
        rows: impl Iterator<Item = Result<Values>>,
        cancellation: &Cancellation,
    ) -> Result<u64> {
        let one = one_statement(statement).map_err(|e| self.refused(&cancellation.user(), statement, e))?;
        let mut audited = self.audit(StatementClass::Command, &one.text, cancellation)?;
        audited.end(self.run_all(&one, rows, cancellation))
    }

    fn run_all(
        &self,
        one: &ParsedStatement,
        rows: impl Iterator<Item = Result<Values>>,
        cancellation: &Cancellation,
    ) -> Result<u64> {
        let mut changed = 0;
        let mut inserts: Option<Inserts> = None;
        for (number, values) in rows.enumerate() {
            cancellation.check()?;
            let outcome = self.run_one(one, &values?, &mut inserts, cancellation);
            changed += outcome.map_err(|e| at_row(number + 1, e))?;
        }
        let Some(Inserts { table, is_temporary, batches }) = inserts else {
            return Ok(changed);
        };
        let rows = self.insert(&table, is_temporary, gathered(batches)?)?;
        self.note_written(&table.name, is_temporary, rows, cancellation);
        Ok(rows)
    }

    fn run_one(
        &self,
        one: &ParsedStatement,
        values: &Values,
        inserts: &mut Option<Inserts>,
        cancellation: &Cancellation,
    ) -> Result<u64> {
        let snapshot = self.snapshot_for(one)?;
        match sql::bind_values(one, &snapshot, &values.0)? {
            Bound::Insert { table, query, overwrite: false } => {
                let table = command::inserted_into(&snapshot, &table)?;
                let made = self
                    .run(&self.plan(query, &snapshot)?, None, cancellation)?
                    .collect::<Result<Vec<_>>>()?;
                let is_temporary = snapshot.is_temporary(&table.name);
                let all = inserts.get_or_insert_with(|| Inserts {
                    table: table.clone(),
                    is_temporary,
                    batches: vec![],
                });
                if all.is_temporary != is_temporary || !same_columns(&all.table.schema, &table.schema) {
                    return Err(replaced(&table.name));
                }
                all.batches.extend(made);
                Ok(0)
            }
            bound if rows_schema(&bound).1 => Err(EngineError::execution(
                "this statement has rows and changes nothing: run it as a query, not as an update",
            )),
            other => {
                let result = command::execute(self, other, &snapshot, cancellation)?;
                result.map(|b| Ok(command::changed(&b?))).sum()
            }
        }
    }
}

fn parameter_schema(types: Vec<DataType>) -> Schema {
    let field = |(i, t): (usize, DataType)| Field::new(format!("${}", i + 1), t, true);
    Schema::new(types.into_iter().enumerate().map(field).collect::<Vec<_>>())
}

/// An error that one of many rows of values has met.
fn at_row(number: usize, e: EngineError) -> EngineError {
    let located = |message| format!("row {number} of the parameters: {message}");
    match e {
        EngineError::Execution(message) => EngineError::Execution(located(message)),
        EngineError::Plan(PlanError::Invalid { message, hint }) => {
            EngineError::Plan(PlanError::Invalid { message: located(message), hint })
        }
        other => other,
    }
}

/// Batches of a few rows each as large ones.
fn gathered(batches: Vec<RecordBatch>) -> Result<Vec<Batch>> {
    let Some(first) = batches.first() else {
        return Ok(vec![]);
    };
    let schema = command::nullable(&first.schema());
    let mut large = vec![];
    let (mut from, mut rows) = (0, 0);
    for (i, batch) in batches.iter().enumerate() {
        rows += batch.num_rows();
        if rows >= BATCH_ROWS || i + 1 == batches.len() {
            large.push(Batch::from(concat_batches(&schema, &batches[from..=i])?));
            (from, rows) = (i + 1, 0);
        }
    }
    Ok(large)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Date32Array, Float64Array, Int64Array, StringArray};

    use super::*;
    use crate::SessionOptions;

    fn session() -> Session {
        let session = Session::new(SessionOptions::default()).unwrap();
        session.execute("CREATE TABLE t (a INTEGER, b VARCHAR, d DATE)").unwrap();
        session
    }

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().enumerate().map(|(i, c)| (format!("{i}"), c, true)),
        )
        .unwrap()
    }

    fn insert(session: &Session, columns: Vec<ArrayRef>) -> Result<u64> {
        let rows = ValueRows::of(&batch(columns))?;
        session.run_each("INSERT INTO t VALUES (?, ?, ?)", rows, &Cancellation::default())
    }

    #[test]
    fn a_statement_is_described_without_values() {
        let session = session();
        let insert = session.describe("INSERT INTO t VALUES (?, ?, ?)").unwrap();
        let types: Vec<String> =
            insert.parameters.fields().iter().map(|f| f.data_type().to_string()).collect();
        assert_eq!(types, ["Int32", "Utf8View", "Date32"]);
        assert!(!insert.is_query && insert.schema.fields().is_empty());
        let query = session.describe("SELECT b, ? AS x FROM t WHERE a > ? LIMIT ?").unwrap();
        let types: Vec<String> =
            query.parameters.fields().iter().map(|f| f.data_type().to_string()).collect();
        assert_eq!(
            (types.as_slice(), query.schema.fields().len()),
            (&["Null", "Int32", "Int64"].map(String::from)[..], 2)
        );
        // Planned only when the argument is known.
        assert!(session.describe("SELECT date_trunc(?, TIMESTAMP '2024-01-01 10:00:00')").unwrap().is_query);
        assert!(session.prepare("SELECT ?").is_err_and(|e| e.to_string().contains("no values")));
    }

    #[test]
    fn many_rows_are_inserted_together_or_not_at_all() {
        let session = session();
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("x'; DROP TABLE t"), None]));
        let date: ArrayRef = Arc::new(Date32Array::from(vec![1, 2]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        assert_eq!(insert(&session, vec![numbers.clone(), text.clone(), date.clone()]).unwrap(), 2);
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![3, i64::MAX]));
        let e = insert(&session, vec![wide, text.clone(), date.clone()]).unwrap_err().to_string();
        assert!(e.contains("row 2 of the parameters"), "{e}");
        assert!(
            insert(&session, vec![numbers.clone(), text]).unwrap_err().to_string().contains("3 parameters")
        );
        let none = RecordBatch::new_empty(batch(vec![numbers]).schema());
        let nothing = session.run_each(
            "INSERT INTO t VALUES (?, 'x', NULL)",
            ValueRows::of(&none).unwrap(),
            &Cancellation::default(),
        );
        assert_eq!(nothing.unwrap(), 0);
        let found = session.execute("SELECT b FROM t WHERE a = 1").unwrap();
        assert_eq!(found.rows(), 1);
        assert_eq!(session.execute("SELECT * FROM t").unwrap().rows(), 2);
    }

    #[test]
    fn a_query_takes_values_of_its_own_types() {
        let session = session();
        session.execute("INSERT INTO t VALUES (1, 'one', DATE '1970-01-02'), (2, 'two', NULL)").unwrap();
        let run = |sql: &str, columns: Vec<ArrayRef>| -> Result<String> {
            let values = ValueRows::of(&batch(columns))?.next().unwrap()?;
            let statement = session.prepare_with(sql, &values)?;
            let rows: Vec<RecordBatch> =
                session.run_statement(statement, &Cancellation::default())?.collect::<Result<_>>()?;
            Ok(rows
                .iter()
                .map(|b| format!("{}:{:?}", b.num_rows(), b.schema().field(0).data_type()))
                .collect())
        };
        let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let half: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
        let day: ArrayRef = Arc::new(StringArray::from(vec!["1970-01-02"]));
        assert_eq!(run("SELECT a FROM t WHERE a > ?", vec![half.clone()]).unwrap(), "1:Int32");
        assert_eq!(run("SELECT a FROM t WHERE d = ?", vec![day.clone()]).unwrap(), "1:Int32");
        assert_eq!(
            run("SELECT ? AS x FROM t ORDER BY a LIMIT ?", vec![day, one.clone()]).unwrap(),
            "1:Utf8View"
        );
        assert_eq!(run("SELECT $1 * 2 AS x, $1 AS y", vec![half]).unwrap(), "1:Float64");
        let nulls: ArrayRef = arrow::array::new_null_array(&DataType::Null, 1);
        assert_eq!(run("SELECT a FROM t WHERE a = ? OR b IS NULL", vec![nulls]).unwrap(), "");
        assert!(run("SELECT a FROM t WHERE a = 1", vec![one]).is_err());
    }
}
