//! Values: constant rows. The first task of a stage emits them all; others emit nothing.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::ScalarValue;
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::Values;

use super::collect;
use crate::batch::{BATCH_ROWS, Batch, concat_arrays, to_logical};
use crate::error::{EngineError, Result};
use crate::expr::compile;
use crate::task::{Source, SourceFactory, TaskContext};

/// Evaluates the rows, and makes sources of them.
pub fn source_factory(values: &Values, schema: &SchemaRef) -> Result<Arc<dyn SourceFactory>> {
    let types: Vec<&DataType> = schema.fields().iter().map(|f| f.data_type()).collect();
    if values.rows.iter().any(|row| row.len() != types.len()) {
        return Err(EngineError::internal("a row of VALUES has another width than the schema"));
    }
    let columns = (0..types.len()).map(|c| column(values, c, types[c])).collect::<Result<Vec<_>>>()?;
    let all = Batch::from_arrays(columns, values.rows.len());
    let batches = (0..all.rows)
        .step_by(BATCH_ROWS)
        .map(|start| all.slice(start, BATCH_ROWS.min(all.rows - start)))
        .collect();
    Ok(Arc::new(ValuesFactory { batches }))
}

/// One column of all rows. Literals of the right type, the usual case, are converted at once.
fn column(values: &Values, column: usize, data_type: &DataType) -> Result<ArrayRef> {
    let literals: Option<Vec<ScalarValue>> = values
        .rows
        .iter()
        .map(|row| match &row[column] {
            Expr::Literal(l) if l.0.data_type() == *data_type => Some(l.0.clone()),
            Expr::Literal(l) if l.0.data_type() == DataType::Null => ScalarValue::try_from(data_type).ok(),
            _ => None,
        })
        .collect();
    match literals {
        Some(literals) if !literals.is_empty() => Ok(ScalarValue::iter_to_array(literals)?),
        _ => {
            let nothing = Batch { columns: vec![], rows: 1 };
            let cells = values
                .rows
                .iter()
                .map(|row| to_logical(&compile(&row[column])?.evaluate(&nothing)?.values()?, data_type))
                .collect::<Result<Vec<_>>>()?;
            concat_arrays(&cells, data_type)
        }
    }
}

struct ValuesFactory {
    batches: Vec<Batch>,
}

impl SourceFactory for ValuesFactory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Source>> {
        Ok(collect::source(if task.partition == 0 { self.batches.clone() } else { vec![] }))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};

    use super::*;
    use crate::operators::harness::{drain, rows, task};

    fn int(value: Option<i64>) -> ScalarValue {
        ScalarValue::Int64(value)
    }

    #[test]
    fn rows_come_once_and_untyped_nulls_take_the_columns_type() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let values = Values {
            rows: vec![
                vec![Expr::literal(int(Some(3)))],
                vec![Expr::literal(ScalarValue::Null)],
                vec![Expr::literal(int(Some(1)))],
            ],
        };
        let factory = source_factory(&values, &schema).unwrap();
        let first = drain(factory.open(&task(0, 2)).unwrap()).unwrap();
        assert_eq!(rows(&first), [[int(Some(3))], [int(None)], [int(Some(1))]]);
        assert!(drain(factory.open(&task(1, 2)).unwrap()).unwrap().is_empty());
    }

    #[test]
    fn one_empty_row_is_a_row() {
        let factory = source_factory(&Values::one_empty_row(), &Arc::new(Schema::empty())).unwrap();
        let out = drain(factory.open(&task(0, 1)).unwrap()).unwrap();
        assert_eq!(out.iter().map(|b| b.rows).sum::<usize>(), 1);
    }

    #[test]
    fn many_rows_come_in_batches() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let values = Values { rows: (0..20_000).map(|i| vec![Expr::literal(int(Some(i)))]).collect() };
        let out = drain(source_factory(&values, &schema).unwrap().open(&task(0, 1)).unwrap()).unwrap();
        assert_eq!(out.iter().map(|b| b.rows).collect::<Vec<_>>(), [8192, 8192, 3616]);
    }
}
