//! Collect: keeps rows as they come, for the caller or for a later stage.
//!
//! Batches are gathered, so that a few surviving rows do not keep whole row groups in memory, and small
//! ones are joined until they have about [`BATCH_ROWS`] rows. Order is kept. [`Coalescer`] is this last
//! part alone, for other sinks.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

use crate::batch::{BATCH_ROWS, Batch, Column, concat_arrays};
use crate::error::Result;
use crate::exchange::{KeptWriter, ResultFlow};
use crate::task::{Flow, Output, Sink, SinkFactory, Source, TaskContext};
use crate::views::cut_free;

/// Makes sinks that keep all rows, in order; of a result that is read while the query runs, that hand them on.
pub fn sink_factory(result: Option<Arc<ResultFlow>>) -> Arc<dyn SinkFactory> {
    Arc::new(CollectFactory { result })
}

/// A source of batches that are there already.
pub fn source(batches: Vec<Batch>) -> Box<dyn Source> {
    Box::new(Collected { batches: batches.into_iter() })
}

struct Collected {
    batches: std::vec::IntoIter<Batch>,
}

impl Source for Collected {
    fn next(&mut self) -> Result<Option<Batch>> {
        Ok(self.batches.next())
    }
}

struct CollectFactory {
    result: Option<Arc<ResultFlow>>,
}

impl SinkFactory for CollectFactory {
    fn open(&self, task: &TaskContext) -> Result<Box<dyn Sink>> {
        let to = match &self.result {
            Some(result) => To::Result(result.clone(), task.clone()),
            None => To::Kept(Box::new(KeptWriter::new(task))),
        };
        Ok(Box::new(Collect { rows: Coalescer::default(), to }))
    }
}

struct Collect {
    rows: Coalescer,
    to: To,
}

/// Where the rows go.
enum To {
    Kept(Box<KeptWriter>),
    Result(Arc<ResultFlow>, TaskContext),
}

impl Collect {
    fn take_done(&mut self) -> Result<Flow> {
        for batch in self.rows.take_done() {
            match &mut self.to {
                To::Kept(kept) => kept.push(&batch)?,
                To::Result(result, task) => {
                    if result.push(task.number, &batch, &task.query)? == Flow::Done {
                        return Ok(Flow::Done);
                    }
                }
            }
        }
        Ok(Flow::Continue)
    }
}

impl Sink for Collect {
    fn push(&mut self, batch: Batch) -> Result<Flow> {
        self.rows.push(&batch)?;
        self.take_done()
    }

    fn finish(mut self: Box<Self>) -> Result<Output> {
        self.rows.join_small()?;
        self.take_done()?;
        let kept = match self.to {
            To::Kept(kept) => Some(kept.finish()?),
            To::Result(..) => None,
        };
        Ok(Output { kept, ..Output::default() })
    }
}

/// Gathers batches and joins small ones, in order.
#[derive(Default)]
pub(super) struct Coalescer {
    done: Vec<Batch>,
    /// Gathered batches too small to stay alone, fewer than `BATCH_ROWS` rows together.
    small: Vec<Batch>,
    small_rows: usize,
}

impl Coalescer {
    /// Adds a batch at the end.
    pub(super) fn push(&mut self, batch: &Batch) -> Result<()> {
        if batch.rows == 0 {
            return Ok(());
        }
        let batch = gathered(batch)?;
        if batch.rows >= BATCH_ROWS / 2 {
            self.join_small()?;
            self.done.push(batch);
            return Ok(());
        }
        self.small_rows += batch.rows;
        self.small.push(batch);
        if self.small_rows >= BATCH_ROWS { self.join_small() } else { Ok(()) }
    }

    /// The batches that are large enough, taken out.
    pub(super) fn take_done(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.done)
    }

    /// Rows that are not among [`Self::take_done`] yet.
    pub(super) fn small_rows(&self) -> usize {
        self.small_rows
    }

    /// Calls everything large enough.
    pub(super) fn join_small(&mut self) -> Result<()> {
        if !self.small.is_empty() {
            let joined = concat_batches(&self.small)?;
            self.small.clear();
            self.small_rows = 0;
            self.done.push(joined);
        }
        Ok(())
    }
}

/// The batch, gathered, and if it has few rows of large arrays, without holding on to these.
pub(super) fn gathered(batch: &Batch) -> Result<Batch> {
    let columns = batch.columns.iter().map(|column| {
        let sparse = column.indices().is_some() && column.base().len() > 4 * column.len();
        let values = column.values()?;
        Ok(Column::new(if sparse { cut_free(values) } else { values }))
    });
    Ok(Batch { columns: columns.collect::<Result<_>>()?, rows: batch.rows })
}

/// Batches of the same logical types as one, each column in one physical form.
pub(super) fn concat_batches(batches: &[Batch]) -> Result<Batch> {
    if let [only] = batches {
        return only.gathered();
    }
    let rows = batches.iter().map(|b| b.rows).sum();
    let width = batches.first().map_or(0, |b| b.columns.len());
    let columns = (0..width)
        .map(|c| {
            let arrays = batches.iter().map(|b| b.columns[c].values()).collect::<Result<Vec<_>>>()?;
            Ok(Column::new(concat_any(&arrays)?))
        })
        .collect::<Result<_>>()?;
    Ok(Batch { columns, rows })
}

/// Arrays of one logical type as one, in one physical form; there is at least one.
pub(super) fn concat_any(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    concat_arrays(arrays, &common_form(arrays))
}

/// The type to which arrays of one logical type, in different physical forms, are converted.
fn common_form(arrays: &[ArrayRef]) -> DataType {
    let plain = |t: &DataType| match t {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    };
    let first = plain(arrays[0].data_type());
    arrays.iter().map(|a| plain(a.data_type())).find(|t| *t != first).map_or(first.clone(), |other| {
        match (&first, &other) {
            // The narrow form of a decimal and the logical one: the logical one.
            (DataType::Decimal64(_, _), wide @ DataType::Decimal128(_, _)) => wide.clone(),
            (_, DataType::Utf8View) => DataType::Utf8View,
            (DataType::Null, other) => (*other).clone(),
            _ => first,
        }
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, DictionaryArray, StringViewArray, UInt32Array};
    use arrow::datatypes::UInt32Type;

    use super::*;
    use crate::operators::harness::{kept_of, rows, run_sink};

    fn strings(range: std::ops::Range<usize>) -> Batch {
        let array: ArrayRef = Arc::new(StringViewArray::from_iter_values(
            range.clone().map(|i| format!("a longer string {i}")),
        ));
        Batch::from_arrays(vec![array], range.len())
    }

    #[test]
    fn small_batches_are_joined_in_order() {
        let sizes = [10, 3, 5000, 4000, 4000, 200, 0, 9000, 1];
        let mut start = 0;
        let input: Vec<Batch> = sizes
            .iter()
            .map(|n| {
                start += n;
                strings(start - n..start)
            })
            .collect();
        let expected = rows(&input);
        let output = run_sink(sink_factory(None).as_ref(), input).unwrap();
        let kept = kept_of(&output);
        let sizes: Vec<_> = kept.iter().map(|b| b.rows).collect();
        assert_eq!(sizes, [13, 5000, 8200, 9000, 1]);
        assert!(rows(&kept) == expected);
    }

    #[test]
    fn physical_forms_are_reconciled() {
        let plain = strings(0..2);
        let codes: DictionaryArray<UInt32Type> =
            DictionaryArray::new(UInt32Array::from(vec![1, 0]), plain.columns[0].values().unwrap());
        let coded = Batch::from_arrays(vec![Arc::new(codes)], 2);
        let output = run_sink(sink_factory(None).as_ref(), vec![plain.clone(), coded]).unwrap();
        let array = kept_of(&output)[0].columns[0].values().unwrap();
        assert_eq!(array.data_type(), &DataType::Utf8View);
        let array = array.as_string_view();
        let texts: Vec<_> = array.iter().flatten().map(|s| s.rsplit(' ').next().unwrap()).collect();
        assert_eq!(texts, ["0", "1", "1", "0"]);
    }

    #[test]
    fn a_few_rows_do_not_keep_large_buffers_alive() {
        let batch = strings(0..8000).select(&Arc::new(UInt32Array::from(vec![17])));
        let output = run_sink(sink_factory(None).as_ref(), vec![batch]).unwrap();
        let array = kept_of(&output)[0].columns[0].values().unwrap();
        assert_eq!(array.as_string_view().value(0), "a longer string 17");
        assert!(array.get_array_memory_size() < 10_000);
    }
}
