//! Scripts without a person: statements in order, results on stdout, the first error ends the run.

use std::io::{self, BufWriter, Write};
use std::time::Instant;

use anyhow::Result;
use dovetail_engine::EngineError;

use crate::database::Database;
use crate::format::{Format, Layout, write_result};
use crate::interrupt::Interrupts;
use crate::progress::with_progress;

/// How a script is run and its results are printed.
pub struct OneShot<'a> {
    pub database: &'a Database,
    pub format: Format,
    /// Print the time of each statement on stderr.
    pub timing: bool,
    pub interrupts: &'a Interrupts,
}

impl OneShot<'_> {
    /// Runs a script's statements one by one; a result is printed once it is complete.
    pub fn run(&mut self, script: &str) -> Result<()> {
        let layout = Layout::of_stdout();
        for statement in self.database.statements(script)? {
            // Pressed while nothing ran that it could have stopped.
            if self.interrupts.raised() {
                return Err(EngineError::Cancelled.into());
            }
            let start = Instant::now();
            let result = with_progress(self.database, || self.database.stream(&statement))?;
            let elapsed = start.elapsed();
            let mut out = BufWriter::new(io::stdout().lock());
            write_result(&mut out, result, self.format, &layout, None)?;
            out.flush()?;
            drop(out);
            if self.timing {
                writeln!(io::stderr(), "time: {:.6} s", elapsed.as_secs_f64())?;
            }
        }
        Ok(())
    }
}
