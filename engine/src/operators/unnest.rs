//! Unnest: lists into rows, structs into columns.
//!
//! Lists that are unnested side by side advance together; the shorter ones are padded with nulls. A list
//! of depth `n` is unnested `n` times: level by level from the deepest, and at each level together with the
//! lists that are that deep, so that `unnest(unnest(a)), unnest(b)` pairs the inner elements of `a` with
//! the elements of `b`.
//!
//! The other columns are not copied: they are seen through the row numbers that repeat. A batch is
//! taken in pieces of input rows that become some ten thousand rows each, and goes on in batches of the
//! usual size.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, UInt32Array, make_array, new_empty_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use dovetail_planner::physical::{Unnest, UnnestColumn};

use crate::batch::{BATCH_ROWS, Batch, Column};
use crate::error::{EngineError, Result};
use crate::task::{Downstream, Flow, Operator, OperatorFactory, QueryContext, TaskContext};

/// Rows that a piece of a batch may become at the first level, unless a single row becomes more.
const PIECE_ROWS: usize = 8 * BATCH_ROWS;

/// Makes the unnests of a stage.
pub fn factory(unnest: &Unnest, input_schema: &SchemaRef) -> Result<Arc<dyn OperatorFactory>> {
    for &(column, depth) in &unnest.lists {
        let mut data_type = input_schema.field(column).data_type();
        for _ in 0..depth {
            data_type = match data_type {
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                    item.data_type()
                }
                DataType::Null => data_type,
                other => {
                    return Err(EngineError::Unsupported(
                        format!("unnest of a value of type {other}"),
                        "Unnest lists; cast other list-like types to a list first".into(),
                    ));
                }
            };
        }
    }
    Ok(Arc::new(UnnestFactory { unnest: unnest.clone() }))
}

struct UnnestFactory {
    unnest: Unnest,
}

impl OperatorFactory for UnnestFactory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Unnester { unnest: self.unnest.clone(), query: task.query.clone() }))
    }
}

struct Unnester {
    unnest: Unnest,
    query: Arc<QueryContext>,
}

impl Operator for Unnester {
    fn push(&mut self, batch: Batch, out: &mut dyn Downstream) -> Result<Flow> {
        let mut start = 0;
        while start < batch.rows {
            self.query.check_cancelled()?;
            let rows = self.piece(&batch, start)?;
            let output = self.unnest(&batch.slice(start, rows))?;
            start += rows;
            for from in (0..output.rows).step_by(BATCH_ROWS) {
                let slice = output.slice(from, BATCH_ROWS.min(output.rows - from));
                if out.push(slice)? == Flow::Done {
                    return Ok(Flow::Done);
                }
            }
        }
        Ok(Flow::Continue)
    }
}

impl Unnester {
    /// How many input rows from `start` on to take at once.
    fn piece(&self, batch: &Batch, start: usize) -> Result<usize> {
        let rest = batch.rows - start;
        let deepest = self.deepest();
        let mut lengths = vec![1; rest];
        for (column, depth) in &self.unnest.lists {
            if *depth == deepest {
                let lists = Lists::of(&batch.columns[*column].values()?.slice(start, rest))?;
                lengths.iter_mut().zip(&lists.spans).for_each(|(l, span)| *l = span.len().max(*l));
            }
        }
        let mut rows = 0;
        let fits = lengths.iter().take_while(|&&length| {
            rows += length;
            rows <= PIECE_ROWS
        });
        Ok(fits.count().max(1))
    }

    fn deepest(&self) -> usize {
        self.unnest.lists.iter().map(|(_, depth)| *depth).max().unwrap_or(0)
    }

    /// All rows that a batch becomes.
    fn unnest(&self, batch: &Batch) -> Result<Batch> {
        // The input row of every row so far; none: row for row.
        let mut origin: Option<UInt32Array> = None;
        let mut unnested: Vec<Option<ArrayRef>> = vec![None; self.unnest.lists.len()];
        for level in (1..=self.deepest()).rev() {
            let active: Vec<usize> =
                (0..unnested.len()).filter(|&list| self.unnest.lists[list].1 >= level).collect();
            let mut lists = vec![];
            for &list in &active {
                let values = match &unnested[list] {
                    Some(values) => values.clone(),
                    None => {
                        let values = batch.columns[self.unnest.lists[list].0].values()?;
                        origin.as_ref().map_or(Ok(values.clone()), |rows| take(&values, rows, None))?
                    }
                };
                lists.push(Lists::of(&values)?);
            }
            let lengths = row_lengths(&lists, self.unnest.preserve_nulls);
            for (&list, lists) in active.iter().zip(&lists) {
                unnested[list] = Some(lists.elements(&lengths)?);
            }
            origin = Some(repeated(origin.as_ref(), &lengths)?);
        }
        self.output(batch, origin, &unnested)
    }

    fn output(
        &self,
        batch: &Batch,
        origin: Option<UInt32Array>,
        unnested: &[Option<ArrayRef>],
    ) -> Result<Batch> {
        let origin = origin.map(Arc::new);
        let rows = origin.as_ref().map_or(batch.rows, |o| o.len());
        let repeated = match &origin {
            Some(origin) => batch.select(origin),
            None => batch.clone(),
        };
        let columns = self
            .unnest
            .output
            .iter()
            .map(|column| match column {
                UnnestColumn::Repeated(column) => Ok(repeated.columns[*column].clone()),
                UnnestColumn::Element(list) => unnested[*list]
                    .clone()
                    .map(Column::new)
                    .ok_or_else(|| EngineError::internal("a list with a depth of 0 is not unnested")),
                UnnestColumn::Field { column, field } => {
                    let part = struct_field(&batch.columns[*column].values()?, *field)?;
                    Ok(match &origin {
                        Some(origin) => Column::indexed(part, origin.clone()),
                        None => Column::new(part),
                    })
                }
            })
            .collect::<Result<_>>()?;
        Ok(Batch { columns, rows })
    }
}

/// The lists of a column: where each row's elements are. A null list has none.
struct Lists {
    items: ArrayRef,
    spans: Vec<Range<usize>>,
}

impl Lists {
    fn of(values: &ArrayRef) -> Result<Self> {
        fn variable<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> Lists {
            let offsets = list.value_offsets();
            let spans = offsets.windows(2).enumerate().map(|(row, o)| {
                let start = o[0].as_usize();
                if list.is_null(row) { start..start } else { start..o[1].as_usize() }
            });
            Lists { items: list.values().clone(), spans: spans.collect() }
        }
        Ok(match values.data_type() {
            DataType::List(_) => variable(values.as_list::<i32>()),
            DataType::LargeList(_) => variable(values.as_list::<i64>()),
            DataType::FixedSizeList(_, size) => {
                let list = values.as_fixed_size_list();
                let size = *size as usize;
                let spans = (0..list.len()).map(|row| {
                    let start = row * size;
                    if list.is_null(row) { start..start } else { start..start + size }
                });
                Lists { items: list.values().clone(), spans: spans.collect() }
            }
            DataType::Null => {
                Lists { items: new_empty_array(&DataType::Null), spans: vec![0..0; values.len()] }
            }
            other => return Err(EngineError::internal(format!("unnest of {other}"))),
        })
    }

    /// The elements row after row, each row's padded with nulls to its length.
    fn elements(&self, lengths: &[usize]) -> Result<ArrayRef> {
        let first = self.spans.first().map_or(0, |span| span.start);
        let mut next = first;
        let gapless = self.spans.iter().zip(lengths).all(|(span, &length)| {
            let follows = span.len() == length && (span.start == next || length == 0);
            next += length;
            follows
        });
        if gapless {
            return Ok(self.items.slice(first.min(self.items.len()), next - first));
        }
        if u32::try_from(self.items.len()).is_err() {
            return Err(EngineError::Resources(format!(
                "a batch of lists with {} elements, more than 4,294,967,295",
                self.items.len()
            )));
        }
        let mut rows = Vec::with_capacity(lengths.iter().sum());
        let mut valid = Vec::with_capacity(rows.capacity());
        for (span, &length) in self.spans.iter().zip(lengths) {
            rows.extend(span.clone().map(|row| row as u32));
            valid.resize(rows.len(), true);
            rows.resize(rows.len() + length - span.len(), 0);
            valid.resize(rows.len(), false);
        }
        let rows = UInt32Array::new(rows.into(), Some(NullBuffer::from(valid)));
        Ok(take(&self.items, &rows, None)?)
    }
}

/// How many rows each row becomes: as many as its longest list has elements.
fn row_lengths(lists: &[Lists], preserve_nulls: bool) -> Vec<usize> {
    let least = usize::from(preserve_nulls);
    let rows = lists.first().map_or(0, |l| l.spans.len());
    let mut lengths = vec![least; rows];
    for list in lists {
        lengths.iter_mut().zip(&list.spans).for_each(|(length, span)| *length = span.len().max(*length));
    }
    lengths
}

/// Each row as often as its length says.
fn repeated(origin: Option<&UInt32Array>, lengths: &[usize]) -> Result<UInt32Array> {
    let total: usize = lengths.iter().sum();
    if u32::try_from(total).is_err() {
        return Err(EngineError::Resources(format!(
            "unnest would make {total} rows of a few, more than 4,294,967,295; filter the lists first"
        )));
    }
    let mut rows = Vec::with_capacity(total);
    for (row, &length) in lengths.iter().enumerate() {
        rows.resize(rows.len() + length, origin.map_or(row as u32, |o| o.value(row)));
    }
    Ok(rows.into())
}

/// A field of a struct column; null where the struct is.
fn struct_field(values: &ArrayRef, field: usize) -> Result<ArrayRef> {
    let values = values.as_struct_opt().ok_or_else(|| {
        EngineError::internal(format!("a field of {}, which is no struct", values.data_type()))
    })?;
    let part = values.column(field);
    match values.nulls() {
        None => Ok(part.clone()),
        Some(nulls) if *part.data_type() != DataType::Null => {
            let nulls = NullBuffer::union(part.logical_nulls().as_ref(), Some(nulls));
            Ok(make_array(part.to_data().into_builder().nulls(nulls).build()?))
        }
        Some(_) => Ok(part.clone()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{FixedSizeListArray, Int64Array, LargeListArray, ListArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;
    use crate::operators::harness::{rows, run_operator};

    fn lists(rows: Vec<Option<Vec<Option<i64>>>>) -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(rows))
    }

    fn run(columns: Vec<ArrayRef>, unnest: Unnest) -> Vec<String> {
        let fields: Vec<_> = columns
            .iter()
            .enumerate()
            .map(|(i, c)| Field::new(format!("{i}"), c.data_type().clone(), true))
            .collect();
        let factory = factory(&unnest, &Arc::new(Schema::new(fields))).unwrap();
        let n = columns[0].len();
        let batch = Batch::from_arrays(columns, n);
        // The same rows once as they are and once seen through indices.
        let lazy = batch.select(&Arc::new(UInt32Array::from_iter_values(0..n as u32)));
        let texts = |batch: Batch| -> Vec<String> {
            let out = run_operator(factory.as_ref(), vec![batch]).unwrap();
            let text = |row: Vec<datafusion_common::ScalarValue>| {
                row.iter().map(|v| v.to_string()).collect::<Vec<_>>().join(" ")
            };
            rows(&out).into_iter().map(text).collect()
        };
        let found = texts(batch);
        assert_eq!(texts(lazy), found);
        found
    }

    fn side_by_side(preserve_nulls: bool) -> Vec<String> {
        let a = lists(vec![
            Some(vec![Some(1), None, Some(3)]),
            None,
            Some(vec![]),
            Some(vec![Some(4)]),
            Some(vec![]),
        ]);
        let b: ArrayRef = Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(10)]),
            Some(vec![Some(20), Some(21)]),
            None,
            Some(vec![]),
            Some(vec![Some(30)]),
        ]));
        let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..5));
        let output = vec![UnnestColumn::Element(0), UnnestColumn::Repeated(2), UnnestColumn::Element(1)];
        run(vec![a, b, id], Unnest { lists: vec![(0, 1), (1, 1)], output, preserve_nulls })
    }

    #[test]
    fn lists_side_by_side_are_padded() {
        let expected =
            ["1 0 10", "NULL 0 NULL", "3 0 NULL", "NULL 1 20", "NULL 1 21", "4 3 NULL", "NULL 4 30"];
        assert_eq!(side_by_side(false), expected);
        let mut kept = expected.to_vec();
        kept.insert(5, "NULL 2 NULL");
        assert_eq!(side_by_side(true), kept);
    }

    #[test]
    fn deeper_lists_are_unnested_first() {
        // [[1, 2], [3]], null, [[], null, [4]]
        let inner = lists(vec![
            Some(vec![Some(1), Some(2)]),
            Some(vec![Some(3)]),
            Some(vec![]),
            None,
            Some(vec![Some(4)]),
        ]);
        let item = Arc::new(Field::new_list_field(inner.data_type().clone(), true));
        let valid = NullBuffer::from(vec![true, false, true]);
        let nested: ArrayRef =
            Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([2, 0, 3]), inner, Some(valid)));
        let flat = lists(vec![Some(vec![Some(7), Some(8)]), Some(vec![Some(9)]), None]);
        let run_with = |list: Vec<(usize, usize)>, columns: usize| {
            let output = (0..columns).map(UnnestColumn::Element).collect();
            run(vec![nested.clone(), flat.clone()], Unnest { lists: list, output, preserve_nulls: false })
        };
        assert_eq!(run_with(vec![(0, 2)], 1), ["1", "2", "3", "4"]);
        // The second list is repeated for each inner list of the first.
        assert_eq!(run_with(vec![(0, 2), (1, 1)], 2), ["1 7", "2 8", "3 7", "NULL 8", "4 NULL"]);
    }

    #[test]
    fn fixed_size_lists_and_struct_fields() {
        let fixed: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(
            [Some(vec![Some(1), Some(2)]), None, Some(vec![Some(5), None])],
            2,
        ));
        let part: ArrayRef = Arc::new(Int64Array::from(vec![100, 200, 300]));
        let fields = vec![Field::new("x", DataType::Int64, true)].into();
        let parts: ArrayRef =
            Arc::new(StructArray::new(fields, vec![part], Some(NullBuffer::from(vec![true, true, false]))));
        let output = vec![UnnestColumn::Field { column: 1, field: 0 }, UnnestColumn::Element(0)];
        let unnest = Unnest { lists: vec![(0, 1)], output, preserve_nulls: true };
        assert_eq!(
            run(vec![fixed, parts.clone()], unnest),
            ["100 1", "100 2", "200 NULL", "NULL 5", "NULL NULL"]
        );
        let output = vec![UnnestColumn::Field { column: 0, field: 0 }];
        let unnest = Unnest { lists: vec![], output, preserve_nulls: false };
        assert_eq!(run(vec![parts], unnest), ["100", "200", "NULL"]);
    }

    #[test]
    fn long_lists_come_in_batches() {
        let long = lists((0..20).map(|_| Some((0..10_000).map(Some).collect())).collect());
        let fields = vec![Field::new("a", long.data_type().clone(), true)];
        let unnest =
            Unnest { lists: vec![(0, 1)], output: vec![UnnestColumn::Element(0)], preserve_nulls: false };
        let factory = factory(&unnest, &Arc::new(Schema::new(fields))).unwrap();
        let out = run_operator(factory.as_ref(), vec![Batch::from_arrays(vec![long], 20)]).unwrap();
        assert!(out.iter().all(|b| b.rows <= BATCH_ROWS));
        assert_eq!(out.iter().map(|b| b.rows).sum::<usize>(), 200_000);
    }
}
