//! `dovetail demo`: writes a small TPC-H dataset where there is none yet, then shows a few queries over
//! it, so that a newcomer sees data, SQL, results and times within a minute.

pub mod data;
mod tour;

use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use dovetail_engine::Session;

use crate::args::EngineArgs;
use crate::format::seconds;
use crate::interrupt::Interrupts;

/// Writes the data where it is missing, then takes the tour, unless only the data is wanted.
pub fn run(dir: &Path, scale_factor: f64, data_only: bool, engine: &EngineArgs) -> Result<()> {
    let mut out = io::stdout();
    if data::is_ready(dir, scale_factor)? {
        writeln!(out, "TPC-H at scale factor {scale_factor} is in {} already.", dir.display())?;
    } else {
        writeln!(out, "Writing TPC-H at scale factor {scale_factor} to {} ...", dir.display())?;
        out.flush()?;
        let start = Instant::now();
        let options = engine.session_options();
        let interrupts = Interrupts::watch(|| ())?;
        data::write(dir, scale_factor, options.threads, &|| interrupts.raised())?;
        writeln!(out, "Done in {}.", seconds(start.elapsed()))?;
    }
    if data_only {
        return Ok(());
    }
    let place = dir.to_string_lossy();
    let session = Session::open(&place, engine.session_options())?;
    let running = session.cancel_handle();
    let _interrupts = Interrupts::watch(move || running.cancel())?;
    tour::run(&mut out, &session)?;
    writeln!(out, "Now your own: dovetail {place}")?;
    Ok(())
}
