//! A cluster of real processes in which things go wrong: every answer is that of a single process, or an error
//! that says what is the matter.
//!
//! Over TPC-H at scale factor 0.1, with the queries that shuffle most. Each fault is first shown to be one: with
//! recovery switched off the same run fails ([`run::Outcome::Failed`]); a run that ended before its fault came is
//! run again. `cargo test --workspace --test cluster -- stopped` runs what has `stopped` in its name.

mod audit;
mod crowd;
mod damage;
mod data;
mod endpoints;
mod full_disks;
mod garbage;
mod links;
mod losses;
mod proxy;
mod restart;
mod run;
mod secured;
mod server;
mod skew;
mod slow;
mod spilling;
mod streaming;
mod tasks;
mod workers;

use std::process::ExitCode;

use dovetail_sqllogictests::cluster::became_a_process;
use sqllogictest::harness::{Arguments, Trial, run};

fn main() -> ExitCode {
    tasks::add_functions();
    if let Some(code) = became_a_process() {
        return code;
    }
    data::write();
    let all = [
        losses::trials(),
        workers::trials(),
        links::trials(),
        crowd::trials(),
        restart::trials(),
        skew::trials(),
        audit::trials(),
        slow::trials(),
        spilling::trials(),
        streaming::trials(),
        endpoints::trials(),
        damage::trials(),
        full_disks::trials(),
        tasks::trials(),
        secured::trials(),
        garbage::trials(),
    ];
    let trials: Vec<Trial> = all.into_iter().flatten().collect();
    run(&Arguments::from_args(), trials).exit_code()
}
