//! The command line: every flag is defined here, once, with its help.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use dovetail_engine::memory::parse_spill_directory;
use dovetail_engine::{MemoryLimit, SchedulerKind, SessionOptions, SpillDirectory};

use crate::format::Format;

/// Dovetail: SQL over Parquet.
///
/// Without -c or -f, starts a shell; or runs the script on standard input when that is not a terminal.
#[derive(Debug, Parser)]
#[command(name = "dovetail", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Subcommands>,
    /// Folder or URL to query: each Parquet file or sub-folder in it is a table
    #[arg(value_name = "DIR_OR_URL")]
    pub place: Option<String>,
    /// Run these SQL statements and leave
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    pub sql: Vec<String>,
    /// Run the SQL statements of this file and leave
    #[arg(short, long, value_name = "FILE", conflicts_with = "sql")]
    pub file: Vec<PathBuf>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Print the time that each statement took, on standard error
    #[arg(long)]
    pub timing: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// What has a command of its own.
#[derive(Debug, Subcommand)]
pub enum Subcommands {
    /// Write a small TPC-H dataset, then show a few queries over it
    Demo {
        /// Folder for the data; used again when it is already there
        #[arg(default_value = "dovetail-demo")]
        dir: PathBuf,
        /// TPC-H scale factor; 1 is about 350 MB of Parquet
        #[arg(long, default_value_t = 0.1, value_parser = scale_factor)]
        scale_factor: f64,
        /// Write the data and leave
        #[arg(long)]
        data_only: bool,
        #[command(flatten)]
        engine: EngineArgs,
    },
}

/// How queries are executed.
#[derive(Debug, Clone, clap::Args)]
pub struct EngineArgs {
    /// Threads that run queries [default: one for each core]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub threads: Option<usize>,
    /// Partitions that large joins and group-bys are cut into [default: chosen by size]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub partitions: Option<usize>,
    /// What runs the tasks of a query
    #[arg(long, value_enum, default_value_t = Scheduler::Threads)]
    pub scheduler: Scheduler,
    /// Memory that queries may hold: 512MB, 2GiB or a share such as 50%; beyond it they spill to disk
    /// [default: 80% of what the machine or the container has]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<MemoryLimit>,
    /// Directory to spill to, or DIR=SIZE with the most that may lie there; may be given several times
    /// [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR[=SIZE]", value_parser = parse_spill_directory)]
    pub temp_dir: Vec<SpillDirectory>,
}

/// The drivers of the engine's scheduler that run inside this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scheduler {
    /// A pool of threads
    Threads,
    /// One thread, always in the same order; for debugging
    Synchronous,
}

impl EngineArgs {
    /// The engine's own form of these settings.
    pub fn session_options(&self) -> SessionOptions {
        let mut options = SessionOptions::default();
        if let Some(threads) = self.threads {
            options.threads = threads;
        }
        options.partitions = self.partitions;
        options.scheduler = match self.scheduler {
            Scheduler::Threads => SchedulerKind::Threads,
            Scheduler::Synchronous => SchedulerKind::Synchronous,
        };
        options.memory_limit = self.memory_limit;
        options.spill_directories = self.temp_dir.clone();
        options
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n >= 1 => Ok(n),
        _ => Err("expected a whole number, 1 or more".to_owned()),
    }
}

fn scale_factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(f) if f > 0.0 && f <= 1000.0 => Ok(f),
        _ => Err("expected a number above 0 and up to 1000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_folder_and_a_query() {
        let args = Args::try_parse_from(["dovetail", "data", "-c", "SELECT 1", "--threads", "3"]).unwrap();
        assert_eq!(args.place.as_deref(), Some("data"));
        assert_eq!(args.sql, ["SELECT 1"]);
        assert_eq!(args.engine.session_options().threads, 3);
    }

    #[test]
    fn numbers_are_checked() {
        for words in [["--threads", "0"], ["--partitions", "-1"], ["--threads", "two"]] {
            assert!(Args::try_parse_from(["dovetail"].into_iter().chain(words)).is_err(), "{words:?}");
        }
        assert!(Args::try_parse_from(["dovetail", "demo", "--scale-factor", "0"]).is_err());
    }

    #[test]
    fn memory_and_where_to_spill() {
        let words = ["dovetail", "--memory-limit", "512MB", "--temp-dir", "a", "--temp-dir", "b=1GiB"];
        let options = Args::try_parse_from(words).unwrap().engine.session_options();
        assert_eq!(options.memory_limit, Some(MemoryLimit::Bytes(512_000_000)));
        let quotas: Vec<_> = options.spill_directories.iter().map(|d| d.quota_bytes).collect();
        assert_eq!(quotas, [None, Some(1 << 30)]);
        for limit in ["0%", "101%", "512", "1MB", "lots", "-1GB", ""] {
            let words = ["dovetail".to_string(), format!("--memory-limit={limit}")];
            assert!(Args::try_parse_from(words).is_err(), "{limit}");
        }
        assert!(Args::try_parse_from(["dovetail", "--temp-dir", "a=many"]).is_err());
    }
}
