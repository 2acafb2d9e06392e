//! Batches that an operator keeps in memory.

use dovetail_shuffle::Rows;
use dovetail_shuffle::memory::HeldMemory;

use super::Reservation;
use crate::batch::Batch;
use crate::error::Result;
use crate::task::{QueryContext, TaskContext};

/// Counts what batches hold, buffers that they share once, and reserves it.
pub struct HeldBatches {
    held: HeldMemory,
    reservation: Reservation,
}

impl HeldBatches {
    /// Nothing yet, for an operator of a name that a user knows.
    pub fn new(task: &TaskContext, operator: &'static str) -> Self {
        HeldBatches::of_query(&task.query, operator)
    }

    /// [`Self::new`] outside of a task.
    pub fn of_query(query: &QueryContext, operator: &'static str) -> Self {
        HeldBatches { held: HeldMemory::default(), reservation: query.memory.reserve(operator) }
    }

    /// Counts a batch that is kept from now on.
    ///
    /// # Errors
    /// It does not fit the memory limit.
    pub fn add(&mut self, batch: &Batch) -> Result<()> {
        for column in &batch.columns {
            let base = column.base();
            self.held.add(&Rows::new(vec![base.clone()], base.len()));
        }
        self.reservation.resize_firm(self.held.bytes())
    }

    /// Bytes of the batches.
    pub fn bytes(&self) -> usize {
        self.held.bytes()
    }

    /// Something else is there now instead of the batches, of so many bytes.
    ///
    /// # Errors
    /// It does not fit the memory limit.
    pub fn become_bytes(mut self, bytes: usize) -> Result<Reservation> {
        self.reservation.resize_firm(bytes)?;
        Ok(self.reservation)
    }
}

/// Batches that an operator keeps until it knows what becomes of them: buffers that they share are counted
/// once. Nothing is reserved: that is for the operator, which knows what else it holds.
#[derive(Default)]
pub struct KeptBatches {
    batches: Vec<Batch>,
    held: HeldMemory,
    rows: usize,
}

impl KeptBatches {
    /// Adds a batch, gathered.
    pub fn push(&mut self, batch: &Batch) -> Result<()> {
        let batch = batch.gathered()?;
        let columns = batch.columns.iter().map(|c| c.base().clone()).collect();
        self.held.add(&Rows::new(columns, batch.rows));
        self.rows += batch.rows;
        self.batches.push(batch);
        Ok(())
    }

    /// Rows of all batches.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What the batches hold.
    pub fn bytes(&self) -> usize {
        self.held.bytes()
    }

    /// The batches, in the order in which they came.
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// The batches, taken out.
    pub fn take(&mut self) -> Vec<Batch> {
        std::mem::take(self).batches
    }
}
