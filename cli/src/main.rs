//! The binary: reads the command line, runs what it asks for, turns the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use dovetail_cli::args::Args;
use dovetail_cli::run::{exit_code, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    exit_code(run(Args::parse()))
}
