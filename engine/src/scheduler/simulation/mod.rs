//! Simulation: the real state machine in a whole cluster that lives in one thread, and goes wrong in every way that
//! a seed can think of.
//!
//! ```text
//! world ── events, late and doubled ──▶ Scheduler ── actions ──▶ world ── messages ──▶ workers
//!                                          └─▶ invariants: checked after every event
//! ```
//!
//! A seed names a schedule: its graphs, its workers, its faults, the time that everything takes. What fails can be
//! looked at again: `DOVETAIL_SIMULATION_SEED=42 cargo test --workspace --lib simulation`.
//!
//! That the simulator finds what is wrong is shown with defects that are planted in the scheduler
//! ([`PlantedBug`]): each is found within a few hundred seeds.

mod answers;
mod exchanges;
mod faults;
mod graph;
mod invariants;
mod processes;
mod restart;
mod rng;
mod tally;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::state::PlantedBug;

/// Schedules that are run each time.
const SEEDS: u64 = if cfg!(debug_assertions) { 4_000 } else { 10_000 };

/// A planted defect must be found within so many.
const SEEDS_PLANTED: u64 = 20_000;

/// One schedule, or for a long night how many.
const SEED_VARIABLE: &str = "DOVETAIL_SIMULATION_SEED";
const SEEDS_VARIABLE: &str = "DOVETAIL_SIMULATION_SEEDS";

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number of or a seed"))
}

#[test]
fn no_schedule_breaks_an_invariant() {
    if let Some(seed) = number(SEED_VARIABLE) {
        return println!("seed {seed}: {:#?}", world::run(seed, None).0);
    }
    let seeds = number(SEEDS_VARIABLE).unwrap_or(SEEDS);
    let start = Instant::now();
    let mut tally = tally::Tally::default();
    for seed in 0..seeds {
        match catch_unwind(AssertUnwindSafe(|| world::run(seed, None))) {
            Ok(happened) => tally.add(&happened),
            Err(_) => panic!(
                "seed {seed} breaks an invariant, see above; again: {SEED_VARIABLE}={seed} cargo test \
                 --workspace --lib simulation"
            ),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{seeds} schedules in {seconds:.1} s, {:.0} a second: {:#?}", seeds as f64 / seconds, tally.0);
    let never: Vec<&&str> = tally::ALL.iter().filter(|what| !tally.0.contains_key(**what)).collect();
    assert!(never.is_empty(), "what never happened was not tested: {never:?}");
}

#[test]
fn the_same_seed_is_the_same_schedule() {
    assert_eq!(world::run(7, None).0, world::run(7, None).0);
}

fn is_found(bug: PlantedBug) {
    let finds = |seed: &u64| catch_unwind(AssertUnwindSafe(|| world::run(*seed, Some(bug)))).is_err();
    let found = (0..SEEDS_PLANTED).find(finds);
    println!("{bug:?} is found by seed {found:?}");
    assert!(found.is_some(), "{bug:?} is not found by {SEEDS_PLANTED} seeds");
}

#[test]
fn outputs_that_are_not_made_again_are_found() {
    is_found(PlantedBug::ForgetsLostOutputs);
}

#[test]
fn a_second_winner_is_found() {
    is_found(PlantedBug::AcceptsTheSecond);
}

#[test]
fn an_early_release_is_found() {
    is_found(PlantedBug::ReleasesEarly);
}

#[test]
fn two_versions_of_an_output_are_found() {
    is_found(PlantedBug::IgnoresReplayability);
}

#[test]
fn what_was_made_of_another_version_is_found() {
    is_found(PlantedBug::AdoptsAnything);
}

#[test]
fn a_blind_second_attempt_is_found() {
    is_found(PlantedBug::SpeculatesBlindly);
}

#[test]
fn a_late_answer_is_found() {
    is_found(PlantedBug::AnswersLate);
}

#[test]
fn a_worker_that_goes_while_it_is_read_is_found() {
    is_found(PlantedBug::DismissesReadWorkers);
}

#[test]
fn a_task_that_is_tried_again_at_once_is_found() {
    is_found(PlantedBug::RetriesAtOnce);
}
