//! The rows of a query that other processes have computed, on their way to whoever asked.
//!
//! ```text
//! cluster ─ Delivery: where the last stage's outputs are ─▶ DeliveredRows ─▶ ResultStream ─▶ client
//!              ◀── all are here, or one is lost: make it again ──┘ └─ brings one output after the other
//! ```
//!
//! Nothing runs for a reader that is slow: the rows are brought by the thread that reads them, when it needs more. So
//! a client that does not read holds no thread and no place in a queue, and of its rows there is in this process what
//! was brought last: outputs of [`bound_bytes`] together, or one that is larger, which is spilled like any rows that
//! wait. The rest is at the workers, as it was made.
//!
//! Small results wait until they are whole: an error comes before any row. Of a larger one the reader gets rows as soon
//! as the first outputs are here, one output after the other, in the order of the tasks.
//!
//! What always holds: rows go on only when all of their output is here, and each output is brought once. So one that
//! is lost is made again by the cluster and nobody has seen rows of it, whatever their order is then; outputs that
//! are here are not asked for again. Before the first row has gone on, the cluster may take back all that it has
//! handed over and begin anew ([`Delivery::take_back`]); afterwards it cannot. A reader that goes cancels its query.
//!
//! A reader may also leave the rows where they are ([`DeliveredRows::leave`]), for others to fetch; then the cluster
//! says when they have.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::held::HeldOutput;
use super::kept::{KeptReader, KeptRows, KeptWriter};
use super::stream::bound_bytes;
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::task::{QueryContext, TaskContext};

/// Is told how the outputs that were handed over have been read: their rows, or why not all of them are here.
pub type OnEnd = Box<dyn FnOnce(Result<u64>) + Send>;

/// Both ends of a query's way home.
pub fn delivery(context: Arc<QueryContext>) -> (Delivery, DeliveredRows) {
    let shared = Arc::new(Shared::default());
    let rows = DeliveredRows {
        shared: shared.clone(),
        bound_bytes: bound_bytes(&context.memory) as u64,
        task: TaskContext::new(0, 1, context),
        handed: None,
        version: 0,
        brought: 0,
        rows: 0,
        here: nothing(),
        is_over: false,
    };
    (Delivery(shared), rows)
}

/// The cluster's end. None of its calls waits. Dropped, the reader is told that nothing more comes.
pub struct Delivery(Arc<Shared>);

/// The reader's end: the query's rows, in order. Used by one thread at a time.
pub struct DeliveredRows {
    shared: Arc<Shared>,
    bound_bytes: u64,
    task: TaskContext,
    /// Where the outputs are, until all were brought or one is lost.
    handed: Option<Handed>,
    /// Of what was handed over.
    version: u64,
    /// Outputs that were brought, and their rows.
    brought: usize,
    rows: u64,
    /// Those of them that were not read yet.
    here: KeptReader,
    /// All was brought, or there was an error.
    is_over: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There are outputs, or nothing more comes.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What the reader has not taken yet.
    handed: Option<Handed>,
    /// Another each time that everything was taken back.
    version: u64,
    /// The reader has rows.
    goes_on: bool,
    /// Others have fetched all.
    is_fetched: bool,
    failure: Option<EngineError>,
}

struct Handed {
    /// All of the last stage, in the order of the tasks.
    outputs: Vec<Arc<dyn HeldOutput>>,
    on_end: OnEnd,
}

impl Delivery {
    /// Says where all outputs of the last stage are, instead of what was said before. `on_end` is called once, unless
    /// the reader goes or hears of others first.
    pub fn hand_over(&self, outputs: Vec<Arc<dyn HeldOutput>>, on_end: OnEnd) {
        self.0.state.lock().handed = Some(Handed { outputs, on_end });
        self.0.changed.notify_all();
    }

    /// Takes back what was handed over, because the query begins anew. Not possible, and false, if rows have gone on.
    pub fn take_back(&self) -> bool {
        let mut state = self.0.state.lock();
        if state.goes_on {
            return false;
        }
        state.version += 1;
        state.handed = None;
        true
    }

    /// Others have fetched all that the reader has left where it is.
    pub fn fetched(self) {
        self.0.state.lock().is_fetched = true;
    }

    /// The query has failed.
    pub fn fail(self, error: EngineError) {
        self.0.fail(error);
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.0.fail(EngineError::Resources("the server is shutting down".into()));
    }
}

impl Shared {
    /// The first failure counts.
    fn fail(&self, error: EngineError) {
        self.state.lock().failure.get_or_insert(error);
        self.changed.notify_all();
    }
}

impl DeliveredRows {
    /// Waits until there are rows to be read: the first of a large result, or all.
    pub fn wait(&mut self) -> Result<()> {
        self.wait_for(self.bound_bytes)
    }

    /// Waits until all rows are here, on disk if they are many. Then the cluster has nothing of them any more.
    pub fn wait_for_all(mut self) -> Result<KeptReader> {
        self.wait_for(u64::MAX)?;
        Ok(std::mem::replace(&mut self.here, nothing()))
    }

    /// Waits until all rows are computed, and leaves them where they are; which outputs these are, in the order of the
    /// tasks. There is nothing to be read here. They stay until others have fetched them or this is dropped.
    pub fn leave(&mut self) -> Result<Vec<Arc<dyn HeldOutput>>> {
        loop {
            let handed = self.wait_for_outputs()?;
            let mut state = self.shared.state.lock();
            if state.version == self.version {
                state.goes_on = true;
                return Ok(handed.outputs);
            }
        }
    }

    /// How it has ended with rows that were left, if it has.
    pub fn left(&mut self) -> Option<Result<()>> {
        let mut state = self.shared.state.lock();
        let end = if state.is_fetched { Ok(()) } else { Err(state.failure.take()?) };
        drop(state);
        self.is_over = true;
        Some(end)
    }

    fn wait_for(&mut self, bytes: u64) -> Result<()> {
        loop {
            self.bring(bytes)?;
            let mut state = self.shared.state.lock();
            if state.version == self.version {
                state.goes_on = true;
                break;
            }
            drop(state);
            // The query has begun anew: its outputs will be others.
            self.handed = None;
        }
        self.end_if_whole();
        Ok(())
    }

    /// Brings outputs until so many bytes are here, or all.
    fn bring(&mut self, bytes: u64) -> Result<()> {
        let mut here = 0;
        while here < bytes {
            self.check()?;
            let handed = match self.handed.take() {
                Some(handed) => handed,
                None => self.wait_for_outputs()?,
            };
            let Some(output) = handed.outputs.get(self.brought) else {
                self.handed = Some(handed);
                return Ok(());
            };
            match self.bring_one(&**output) {
                Ok(kept) => {
                    here += kept.bytes();
                    self.brought += 1;
                    self.rows += kept.rows();
                    self.here.add(kept);
                    self.handed = Some(handed);
                }
                Err(error) => {
                    self.check()?;
                    // The cluster makes what is lost again, or ends the query.
                    (handed.on_end)(Err(error));
                }
            }
        }
        Ok(())
    }

    fn bring_one(&self, output: &dyn HeldOutput) -> Result<Arc<KeptRows>> {
        let mut kept = KeptWriter::new(&self.task);
        for rows in output.read(0..output.partitions())? {
            self.check()?;
            let rows = rows?;
            kept.push(&Batch::from_arrays(rows.columns, rows.rows))?;
        }
        kept.finish()
    }

    fn wait_for_outputs(&mut self) -> Result<Handed> {
        let mut state = self.shared.state.lock();
        loop {
            if let Some(handed) = state.handed.take() {
                if state.version != self.version {
                    self.version = state.version;
                    (self.brought, self.rows) = (0, 0);
                    self.here = nothing();
                }
                return Ok(handed);
            }
            match state.failure.take() {
                // The cluster sees that the query is to stop, not why.
                Some(EngineError::Cancelled) => {
                    return Err(self.check().err().unwrap_or(EngineError::Cancelled));
                }
                Some(error) => return Err(error),
                None => self.shared.changed.wait(&mut state),
            }
        }
    }

    fn end_if_whole(&mut self) {
        if let Some(handed) = self.handed.take_if(|handed| handed.outputs.len() == self.brought) {
            (handed.on_end)(Ok(self.rows));
            self.is_over = true;
        }
    }

    fn check(&self) -> Result<()> {
        self.task.query.check_cancelled()
    }

    fn read(&mut self) -> Result<Option<Batch>> {
        loop {
            if let Some(batch) = self.here.next().transpose()? {
                return Ok(Some(batch));
            }
            if self.is_over {
                return Ok(None);
            }
            // One output, or several that have no rows.
            self.bring(1)?;
            self.end_if_whole();
        }
    }
}

impl Iterator for DeliveredRows {
    type Item = Result<Batch>;

    /// The next rows, after [`Self::wait`]. Ends after an error.
    fn next(&mut self) -> Option<Result<Batch>> {
        let next = self.read();
        if next.is_err() {
            self.stop();
            self.here = nothing();
        }
        next.transpose()
    }
}

impl DeliveredRows {
    /// Nobody wants the rest.
    fn stop(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.task.query.cancel();
        }
    }
}

impl Drop for DeliveredRows {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Rows that are taken as they are read, none yet.
fn nothing() -> KeptReader {
    KeptReader::taking(Vec::<Arc<KeptRows>>::new())
}

#[cfg(test)]
mod tests;
