//! A cluster of real processes in which things go wrong: every answer is that of a single process, or an error
//! that says what is the matter.
//!
//! Over TPC-H at scale factor 0.1, with the queries that shuffle most. Each fault is first shown to be one: with
//! recovery switched off the same run fails ([`run::Outcome::Failed`]); a run that ended before its fault came is
//! run again. `cargo test --workspace --test cluster -- stopped` runs what has `stopped` in its name.

mod data;
mod links;
mod losses;
mod proxy;
mod restart;
mod run;
mod server;
mod workers;

use std::process::ExitCode;

use dovetail_sqllogictests::cluster::became_a_process;
use sqllogictest::harness::{Arguments, Trial, run};

fn main() -> ExitCode {
    if let Some(code) = became_a_process() {
        return code;
    }
    data::write();
    let mut trials: Vec<Trial> = vec![];
    trials.extend(losses::trials());
    trials.extend(workers::trials());
    trials.extend(links::trials());
    trials.extend(restart::trials());
    run(&Arguments::from_args(), trials).exit_code()
}
