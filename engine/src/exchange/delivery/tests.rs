//! Both ends of a delivery, with outputs that can be lost.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use dovetail_planner::graph::{StageId, TaskId};
use dovetail_shuffle::Rows;

use super::*;
use crate::exchange::RowsReader;
use crate::memory::{Governor, SpillPolicy, SpillSpace};
use crate::scheduler::events::{Attempt, OutputId};

const BATCH: i64 = 1000;
const BATCHES: i64 = 10;

/// The numbers of task `i` are those from `i` times so many.
const EACH: i64 = BATCH * BATCHES;

/// One output, which is lost after so many of its batches.
struct Numbers {
    task: u32,
    lost_after: Option<usize>,
    batches_read: Arc<AtomicUsize>,
}

impl HeldOutput for Numbers {
    fn outputs(&self) -> Vec<OutputId> {
        vec![OutputId { task: TaskId { stage: StageId(3), partition: self.task }, attempt: Attempt(0) }]
    }

    fn partitions(&self) -> usize {
        1
    }

    fn rows(&self, _: usize) -> u64 {
        EACH as u64
    }

    fn bytes(&self) -> u64 {
        8 * EACH as u64
    }

    fn read(&self, _: Range<usize>) -> Result<RowsReader> {
        let (first, lost_after, outputs) = (i64::from(self.task) * EACH, self.lost_after, self.outputs());
        let batches_read = self.batches_read.clone();
        Ok(Box::new((0..BATCHES).map(move |batch| {
            if lost_after == Some(batch as usize) {
                return Err(EngineError::Lost { outputs: outputs.clone(), message: "on purpose".into() });
            }
            batches_read.fetch_add(1, Ordering::Relaxed);
            let start = first + batch * BATCH;
            let values: ArrayRef = Arc::new(Int64Array::from_iter_values(start..start + BATCH));
            Ok(Rows::new(vec![values], BATCH as usize))
        })))
    }
}

struct World {
    context: Arc<QueryContext>,
    delivery: Delivery,
    rows: DeliveredRows,
    batches_read: Arc<AtomicUsize>,
}

/// What a reader reports of an attempt.
type Told = Receiver<Result<u64>>;

impl World {
    fn new(limit: u64) -> World {
        let memory = Governor::new(limit, SpillPolicy::AtLimit);
        let context = Arc::new(QueryContext::bounded(0, memory, SpillSpace::default().query()));
        let (delivery, rows) = delivery(context.clone());
        World { context, delivery, rows, batches_read: Arc::default() }
    }

    fn hand_over(&self, tasks: u32, lost: Option<u32>) -> Told {
        hand_over(&self.delivery, 0..tasks, lost, &self.batches_read)
    }
}

/// Hands over the outputs of some tasks, of which one is lost in the middle.
fn hand_over(delivery: &Delivery, tasks: Range<u32>, lost: Option<u32>, read: &Arc<AtomicUsize>) -> Told {
    let output = |task| {
        let lost_after = (lost == Some(task)).then_some(4);
        Arc::new(Numbers { task, lost_after, batches_read: read.clone() }) as Arc<dyn HeldOutput>
    };
    let (tell, told) = channel();
    // Who has heard enough does not listen.
    delivery.hand_over(tasks.map(output).collect(), Box::new(move |end| tell.send(end).unwrap_or_default()));
    told
}

fn values(batches: impl Iterator<Item = Result<Batch>>) -> Vec<i64> {
    batches
        .flat_map(|b| b.unwrap().columns[0].values().unwrap().as_primitive::<Int64Type>().values().to_vec())
        .collect()
}

/// Little enough that a result of many outputs does not wait until it is whole.
const SMALL: u64 = 1 << 20;

#[test]
fn a_small_result_is_whole_before_its_first_row() {
    let mut world = World::new(u64::MAX);
    let told = world.hand_over(3, None);
    world.rows.wait().unwrap();
    assert_eq!(told.recv().unwrap().unwrap(), 3 * EACH as u64);
    assert!(values(world.rows.by_ref()).into_iter().eq(0..3 * EACH));
    drop(world.rows);
    assert!(world.context.check_cancelled().is_ok(), "what has ended well is not cancelled");
    assert_eq!(world.context.memory.used_bytes(), 0);
}

#[test]
fn a_large_result_is_brought_as_it_is_read() {
    let mut world = World::new(SMALL);
    const TASKS: u32 = 100;
    let told = world.hand_over(TASKS, None);
    world.rows.wait().unwrap();
    let mut read = 0;
    while let Some(batch) = world.rows.next() {
        assert_eq!(values(std::iter::once(batch)), (read..read + BATCH).collect::<Vec<_>>());
        read += BATCH;
        // No more is brought than is read, up to what waits at first, or one output.
        let ahead = world.batches_read.load(Ordering::Relaxed) as i64 * BATCH - read;
        assert!(ahead <= world.rows.bound_bytes as i64 / 8 + EACH, "{ahead}");
    }
    assert_eq!(read, i64::from(TASKS) * EACH);
    assert_eq!(told.try_recv().unwrap().unwrap(), read as u64);
    assert_eq!(world.context.memory.spilled_bytes(), 0);
}

#[test]
fn what_is_lost_is_made_again_and_nothing_is_brought_twice() {
    let mut world = World::new(SMALL);
    let first = world.hand_over(30, Some(20));
    world.rows.wait().unwrap();
    let mut found = values(world.rows.by_ref().take(20 * BATCHES as usize));
    let brought = world.batches_read.load(Ordering::Relaxed);
    // The cluster hears of it when the reader comes to it.
    assert!(first.try_recv().is_err());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| values(world.rows.by_ref()));
        let lost = first.recv().unwrap().unwrap_err();
        assert!(matches!(lost, EngineError::Lost { outputs, .. } if outputs[0].task.partition == 20));
        let told = hand_over(&world.delivery, 0..30, None, &world.batches_read);
        assert_eq!(told.recv().unwrap().unwrap(), 30 * EACH as u64);
        found.extend(reader.join().unwrap());
    });
    assert!(found.into_iter().eq(0..30 * EACH));
    let again = world.batches_read.load(Ordering::Relaxed) - brought;
    assert_eq!(again, 4 + 10 * BATCHES as usize, "a lost part and ten outputs");
}

#[test]
fn a_query_begins_anew_before_its_first_row_and_never_after() {
    let mut world = World::new(u64::MAX);
    let first = world.hand_over(3, Some(2));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            world.rows.wait().unwrap();
            values(world.rows.by_ref())
        });
        assert!(first.recv().unwrap().is_err());
        assert!(world.delivery.take_back());
        // Of another run there may be other outputs.
        let told = hand_over(&world.delivery, 5..7, None, &world.batches_read);
        assert_eq!(told.recv().unwrap().unwrap(), 2 * EACH as u64);
        assert!(reader.join().unwrap().into_iter().eq(5 * EACH..7 * EACH));
    });
    assert!(!world.delivery.take_back());
}

#[test]
fn an_output_that_is_larger_than_memory_passes_over_disk() {
    let mut world = World::new(10_000);
    let _told = world.hand_over(3, None);
    world.rows.wait().unwrap();
    assert!(values(world.rows.by_ref()).into_iter().eq(0..3 * EACH));
    assert!(world.context.memory.spilled_bytes() > 0);
    let World { context, rows, .. } = world;
    drop(rows);
    assert_eq!(context.memory.used_bytes(), 0);
}

#[test]
fn a_failure_is_told_once_and_a_reader_that_goes_cancels() {
    let World { context, delivery, mut rows, .. } = World::new(u64::MAX);
    delivery.fail(EngineError::execution("no"));
    assert!(rows.wait().unwrap_err().to_string().contains("no"));
    assert!(context.check_cancelled().is_ok());
    drop(rows);
    assert!(context.check_cancelled().is_err());
    let World { delivery, mut rows, .. } = World::new(u64::MAX);
    drop(delivery);
    assert!(rows.wait().unwrap_err().to_string().contains("shutting down"));
}

#[test]
fn a_cancelled_query_gives_no_more_rows() {
    let mut world = World::new(SMALL);
    let _told = world.hand_over(100, None);
    world.rows.wait().unwrap();
    assert!(world.rows.next().unwrap().is_ok());
    world.context.cancel();
    let last = world.rows.by_ref().find_map(Result::err);
    assert!(matches!(last, Some(EngineError::Cancelled)));
    assert!(world.rows.next().is_none());
}
