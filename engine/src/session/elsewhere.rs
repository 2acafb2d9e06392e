//! Results that stay at a cluster's workers, for clients that fetch them there, all at the same time.
//!
//! What always holds: the rows stay for as long as an [`Elsewhere`] is there, or until all were fetched; the audit's
//! record of the statement ends with it.

use arrow::datatypes::SchemaRef;

use super::cluster::ClusterQuery;
use super::run::Counted;
use super::running::RunningGuard;
use super::statement::Work;
use super::{Cancellation, Session, Statement};
use crate::audit::{Audited, StatementClass};
use crate::error::{EngineError, Result};
use crate::exchange::{DeliveredRows, HeldOutput};
use crate::scheduler::events::OutputId;

/// A result whose rows are all computed, and not here.
pub struct Elsewhere {
    pub schema: SchemaRef,
    /// In the order of the rows.
    pub outputs: Vec<OutputPlace>,
    rows: DeliveredRows,
    /// How it has ended, if it has.
    end: Option<Result<()>>,
    /// Dropped before the audit's record ends.
    running: Option<RunningGuard>,
    _counted: Counted,
    audited: Audited,
}

/// A part of a result, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPlace {
    pub address: String,
    /// The number that the worker knows the query by.
    pub query: u64,
    pub output: OutputId,
    pub rows: u64,
    /// About.
    pub bytes: u64,
}

impl Session {
    /// Whether the rows of a statement would stay at workers, since the session is set so and there are workers.
    pub fn leaves_rows(&self, statement: &Statement) -> bool {
        self.result_endpoints_are_workers()
            && matches!(&statement.work, Work::Query(planned) if planned.cluster.is_some())
    }

    /// Runs a statement of which [`Session::leaves_rows`] is true. Whoever shows the capability to a worker may fetch
    /// what is there of the result, and nothing else: nobody must be able to guess it.
    ///
    /// # Errors
    /// The query fails, or has more rows than the session may get.
    pub fn run_elsewhere(
        &self,
        statement: Statement,
        capability: Vec<u8>,
        cancellation: &Cancellation,
    ) -> Result<Elsewhere> {
        cancellation.check()?;
        let mut audited = self.audit(StatementClass::Query, &statement.text, cancellation)?;
        let run = self.leave(statement, capability, cancellation);
        match run {
            Ok((schema, outputs, rows, running, counted)) => {
                if let Some(entry) = audited.entry() {
                    entry.add(|record| {
                        record.rows_out += outputs.iter().map(|o| o.rows).sum::<u64>();
                        record.bytes_out += outputs.iter().map(|o| o.bytes).sum::<u64>();
                    });
                }
                let running = Some(running);
                Ok(Elsewhere { schema, outputs, rows, end: None, running, _counted: counted, audited })
            }
            Err(error) => audited.end(Err(error)),
        }
    }

    fn leave(
        &self,
        statement: Statement,
        capability: Vec<u8>,
        cancellation: &Cancellation,
    ) -> Result<(SchemaRef, Vec<OutputPlace>, DeliveredRows, RunningGuard, Counted)> {
        cancellation.note_statement(statement.text);
        let Work::Query(planned) = statement.work else {
            return Err(EngineError::internal("a command leaves no rows at workers"));
        };
        let Some(cluster) = &planned.cluster else {
            return Err(EngineError::internal("the rows of a query of this process stay here"));
        };
        let counted = Counted::enter(&self.flowing, 1).ok_or_else(|| {
            EngineError::Resources("too many results wait to be fetched; fetch or cancel some first".into())
        })?;
        let (context, running) = self.begin(&planned, cancellation);
        let query = self.for_cluster(&planned, None, context, cancellation);
        let mut rows = cluster.run(ClusterQuery { capability: Some(capability), ..query })?;
        let outputs: Vec<OutputPlace> =
            rows.leave()?.iter().map(|output| place(&**output)).collect::<Result<_>>()?;
        self.check_rows(outputs.iter().map(|o| o.rows).sum())?;
        Ok((planned.lowered.schema.clone(), outputs, rows, running, counted))
    }
}

fn place(output: &dyn HeldOutput) -> Result<OutputPlace> {
    let (address, query) = output.place().ok_or_else(|| EngineError::internal("an output has no place"))?;
    let ids = output.outputs();
    let [id] = ids[..] else { return Err(EngineError::internal("several outputs in one place")) };
    let rows = (0..output.partitions()).map(|p| output.rows(p)).sum();
    Ok(OutputPlace { address: address.to_owned(), query, output: id, rows, bytes: output.bytes() })
}

impl Elsewhere {
    /// Whether it is over with the rows, since all were fetched or the query has failed: they are not there any more.
    pub fn is_over(&mut self) -> bool {
        if self.end.is_none() {
            self.end = self.rows.left();
        }
        self.end.is_some()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // What was read is noted before the record ends.
        self.running = None;
        if let Some(end) = self.end.take()
            && let Err(error) = self.audited.end(end)
        {
            tracing::info!(%error, "a result at the workers is lost");
        }
    }
}
