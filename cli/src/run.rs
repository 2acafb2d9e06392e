//! From a parsed command line to an exit code: 0 when all went well or the reader of our output went
//! away, 1 for an error, which is told on stderr as one paragraph.

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::allocator::keep_freed_memory;
use crate::args::{Args, Subcommands};
use crate::database::Database;
use crate::interrupt::Interrupts;
use crate::oneshot::OneShot;
use crate::{demo, shell};

/// Does what the command line asks for.
pub fn run(args: Args) -> Result<()> {
    log_to_stderr();
    match &args.command {
        Some(Subcommands::Demo { dir, scale_factor, data_only, engine }) => {
            return demo::run(dir, *scale_factor, *data_only, engine);
        }
        Some(Subcommands::Server(server)) => return crate::server::run(server),
        Some(Subcommands::Worker(worker)) => return crate::worker::run(worker),
        Some(Subcommands::User(command)) => return crate::user::run(command),
        None => {}
    }
    if args.engine.memory_limit.is_none() {
        keep_freed_memory();
    }
    let database = Database::open(&args)?;
    if args.sql.is_empty() && args.file.is_empty() && io::stdin().is_terminal() {
        return shell::run(&database, &args);
    }
    let scripts = scripts(&args)?;
    let interrupts = cancel_on_interrupt(&database)?;
    let mut oneshot =
        OneShot { database: &database, format: args.format, timing: args.timing, interrupts: &interrupts };
    for script in scripts {
        oneshot.run(&script)?;
    }
    Ok(())
}

/// Ctrl-C stops the running statement, and with it the script; a second one ends the process at once.
fn cancel_on_interrupt(database: &Database) -> io::Result<Interrupts> {
    let cancel = database.cancel_handle();
    let pressed = AtomicBool::new(false);
    Interrupts::watch(move || {
        if pressed.swap(true, Ordering::SeqCst) {
            // What a shell reports of a process that SIGINT has ended.
            std::process::exit(130);
        }
        cancel.cancel();
    })
}

/// The SQL to run, in order: of the command line, of files, or of standard input.
fn scripts(args: &Args) -> Result<Vec<String>> {
    if !args.sql.is_empty() {
        return Ok(args.sql.clone());
    }
    if args.file.is_empty() {
        let mut script = String::new();
        io::stdin().read_to_string(&mut script).context("cannot read standard input")?;
        return Ok(vec![script]);
    }
    let read = |f| std::fs::read_to_string(f);
    args.file.iter().map(|f| read(f).with_context(|| format!("cannot read {}", f.display()))).collect()
}

/// `DOVETAIL_LOG=debug` and the like print the engine's log.
fn log_to_stderr() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("DOVETAIL_LOG") {
        // A second subscriber in one process (tests) is refused, and that is fine.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(ansi(&io::stderr()))
            .try_init();
    }
}

/// Colours only on a terminal, and not when the user set NO_COLOR.
pub fn ansi(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Tells an error and turns the outcome into the process's exit code.
pub fn exit_code(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            print_error(&e);
            ExitCode::FAILURE
        }
    }
}

/// An error as one paragraph on stderr.
pub fn print_error(e: &anyhow::Error) {
    let (on, off) = if ansi(&io::stderr()) { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    // Nothing is left to do when even stderr is gone.
    let _ = writeln!(io::stderr(), "{on}error:{off} {}", paragraph(&format!("{e:#}")));
}

/// Without empty lines, so that an error is one paragraph.
fn paragraph(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    lines.join("\n")
}

/// Whether the reader of our output has gone away.
pub fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.chain().any(|c| c.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_is_found_below_its_context() {
        let e = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("printing");
        assert!(is_broken_pipe(&e));
        assert!(!is_broken_pipe(&anyhow::Error::from(io::Error::other("x"))));
    }

    #[test]
    fn an_error_is_one_paragraph() {
        assert_eq!(paragraph("a\n\n  b \n"), "a\n  b");
    }
}
