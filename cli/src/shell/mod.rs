//! The interactive shell: reads statements from the terminal, runs them, prints results, until the
//! person leaves with Ctrl-D or `.quit`.
//!
//! ```text
//! rustyline ─ entry ─┬─ command ─▶ Shell::command
//!                    └─ SQL ─────▶ Database::stream ─▶ format ─▶ stdout
//! ```
//!
//! What always holds: an error or Ctrl-C ends the entry at hand, never the shell.

mod command;
mod completion;
mod editor;
mod history;
mod lex;
mod listing;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use arrow::array::RecordBatch;
use clap::ValueEnum;
use dovetail_engine::{EngineError, ResultStream, TableInfo};
use rustyline::error::ReadlineError;
use rustyline::{CompletionType, Config, Editor};

use self::command::Command;
use self::editor::Sql;
use crate::allocator::give_back_freed_memory;
use crate::args::Args;
use crate::database::Database;
use crate::format::{Format, Layout, ROWS_SHOWN, write_result, write_rows};
use crate::interrupt::Interrupts;
use crate::progress::with_progress;
use crate::run::{ansi, is_broken_pipe, print_error};

/// Files that read files that read files end here.
const READ_DEPTH_MAX: usize = 16;

/// Reads statements from the terminal until the person leaves.
pub fn run(database: &Database, args: &Args) -> Result<()> {
    let mut editor = editor(database)?;
    let running = Arc::new(AtomicBool::new(false));
    // After the editor, which on its creation takes the signal for itself.
    let interrupts = {
        let (cancel, running) = (database.cancel_handle(), running.clone());
        // Without a running statement there is nothing to stop, least of all the next one.
        Interrupts::watch(move || {
            if running.load(Ordering::SeqCst) {
                cancel.cancel()
            }
        })?
    };
    let format = args.format;
    let mut shell = Shell { database, format, timer: true, width: None, running, interrupts, read_depth: 0 };
    let history = history::path();
    if let Some(path) = &history {
        // There is none yet at the first start.
        let _ = editor.load_history(path);
    }
    let place = args.place.clone().or_else(|| args.connect.as_ref().map(ToString::to_string));
    shell.greet(place.as_deref())?;
    loop {
        match editor.readline("dovetail> ") {
            Ok(entry) if entry.trim().is_empty() => {}
            Ok(entry) => {
                editor.add_history_entry(entry.trim_end())?;
                if let Some(path) = &history {
                    // A home that cannot be written is no reason not to answer.
                    let _ = editor.append_history(path);
                }
                shell.width = editor.dimensions().map(|(columns, _)| usize::from(columns)).filter(|&w| w > 0);
                match shell.enter(&entry) {
                    Ok(Next::Prompt) => {}
                    Ok(Next::Leave) => return Ok(()),
                    Err(e) if is_broken_pipe(&e) => return Err(e),
                    Err(e) => print_error(&e),
                }
                give_back_freed_memory();
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(()),
            Err(e) => return Err(e).context("cannot read from the terminal"),
        }
    }
}

fn editor(database: &Database) -> Result<Editor<Sql<'_>, rustyline::history::FileHistory>> {
    let config = Config::builder()
        .max_history_size(10_000)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Sql { database, colours: ansi(&io::stdout()) }));
    Ok(editor)
}

/// What comes after an entry.
enum Next {
    Prompt,
    Leave,
}

struct Shell<'a> {
    database: &'a Database,
    format: Format,
    /// Whether times are printed.
    timer: bool,
    /// Of the terminal, which may change between entries.
    width: Option<usize>,
    /// Whether a statement is running, for the thread that hears Ctrl-C.
    running: Arc<AtomicBool>,
    interrupts: Interrupts,
    read_depth: usize,
}

impl Shell<'_> {
    fn greet(&self, place: Option<&str>) -> Result<()> {
        let tables = self.database.tables()?.len();
        let of = place.map(|p| format!(" of {p}")).unwrap_or_default();
        let what = if tables == 1 { "table" } else { "tables" };
        writeln!(
            io::stdout(),
            "Dovetail {}, {tables} {what}{of}. Type .help for help.",
            env!("CARGO_PKG_VERSION")
        )?;
        Ok(())
    }

    /// Runs what was entered: one command, or any number of statements.
    fn enter(&mut self, entry: &str) -> Result<Next> {
        self.interrupts.clear();
        if !command::is_command(entry) {
            return self.run_script(entry).map(|()| Next::Prompt);
        }
        match command::parse(entry).map_err(|e| anyhow!(e))? {
            Command::Quit => return Ok(Next::Leave),
            Command::Help => writeln!(io::stdout(), "{}", command::HELP)?,
            Command::Tables => self.print_tables()?,
            Command::Schema(table) => self.print_schema(table.as_deref())?,
            Command::Timer(on) => {
                self.timer = on.unwrap_or(!self.timer);
                writeln!(io::stdout(), "The timer is {}.", if self.timer { "on" } else { "off" })?;
            }
            Command::Mode(Some(format)) => self.format = format,
            Command::Mode(None) => {
                let name =
                    self.format.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
                writeln!(
                    io::stdout(),
                    "Results are printed as {name}; there are {}.",
                    command::format_names().join(", ")
                )?;
            }
            Command::Read(file) => self.read(&file)?,
        }
        Ok(Next::Prompt)
    }

    fn read(&mut self, file: &Path) -> Result<()> {
        if self.read_depth == READ_DEPTH_MAX {
            bail!("{READ_DEPTH_MAX} files read each other; is there a circle?");
        }
        let script =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        self.read_depth += 1;
        let outcome = self.run_script(&script);
        self.read_depth -= 1;
        outcome
    }

    fn run_script(&mut self, script: &str) -> Result<()> {
        for statement in self.database.statements(script)? {
            let start = Instant::now();
            self.running.store(true, Ordering::SeqCst);
            let result = with_progress(self.database, || self.database.stream(&statement));
            self.running.store(false, Ordering::SeqCst);
            match result {
                Ok(result) => self.print(result, start.elapsed())?,
                Err(EngineError::Cancelled) => {
                    bail!("stopped after {}", crate::format::seconds(start.elapsed()))
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn print(&self, result: ResultStream, elapsed: Duration) -> Result<()> {
        let timer = self.timer.then_some(elapsed);
        self.to_stdout(|out| write_result(out, result, self.format, &self.layout(Some(ROWS_SHOWN)), timer))?;
        if let (Some(elapsed), true) = (timer, self.format != Format::Table) {
            writeln!(io::stderr(), "time: {:.6} s", elapsed.as_secs_f64())?;
        }
        Ok(())
    }

    fn print_tables(&self) -> Result<()> {
        self.print_batch(listing::tables(&self.database.tables()?)?)
    }

    fn print_schema(&self, table: Option<&str>) -> Result<()> {
        let wanted = |t: &TableInfo| table.is_none_or(|name| t.name.eq_ignore_ascii_case(name));
        let tables: Vec<TableInfo> = self.database.tables()?.into_iter().filter(wanted).collect();
        if let (Some(name), true) = (table, tables.is_empty()) {
            bail!("there is no table {name}; .tables lists them");
        }
        self.print_batch(listing::columns(&tables)?)
    }

    fn print_batch(&self, batch: RecordBatch) -> Result<()> {
        let (schema, mut rows) = (batch.schema(), std::iter::once(Ok(batch)));
        self.to_stdout(|out| write_rows(out, &schema, &mut rows, self.format, &self.layout(None), None))
    }

    fn layout(&self, max_rows: Option<usize>) -> Layout {
        // Elsewhere than on a terminal nothing is cut.
        match io::stdout().is_terminal() {
            true => Layout { width: self.width, max_rows },
            false => Layout::default(),
        }
    }

    /// Prints, unless Ctrl-C says that it is enough.
    fn to_stdout(&self, write: impl FnOnce(&mut BufWriter<Stoppable<'_>>) -> Result<()>) -> Result<()> {
        let mut out = BufWriter::new(Stoppable(&self.interrupts));
        write(&mut out)?;
        Ok(out.flush()?)
    }
}

/// Standard output until Ctrl-C.
struct Stoppable<'a>(&'a Interrupts);

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.raised() {
            true => Err(io::Error::other("stopped")),
            false => io::stdout().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}
