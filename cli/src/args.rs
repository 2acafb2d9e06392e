//! The command line: every flag is defined here, once, with its help.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use dovetail_engine::memory::{MEMORY_LIMIT_BYTES_MIN, parse_spill_directory, readable};
use dovetail_engine::{LimitScope, MemoryLimit, SchedulerKind, SessionOptions, SpillDirectory};
use dovetail_server::flight_sql::Limits;
use dovetail_server::journal::AUDIT_DAYS;
use dovetail_server::remote::ServerAddress;
use dovetail_server::security::SecurityFiles;
use dovetail_server::security::users::Role;

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
    /// Send the statements to a server, grpc://HOST:PORT or grpc+tls://HOST:PORT, instead of running them here
    #[arg(long, value_name = "URL", conflicts_with_all = ENGINE_ARGS)]
    pub connect: Option<ServerAddress>,
    #[command(flatten)]
    pub security: SecurityArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// What a server was told when it started, and what it serves.
const ENGINE_ARGS: [&str; 6] = ["place", "threads", "partitions", "scheduler", "memory_limit", "temp_dir"];

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
    /// Answer Flight SQL clients: ADBC, JDBC, ODBC, and `dovetail --connect`
    Server(ServerArgs),
    /// Run tasks for a server: join it, and leave it again at will
    Worker(WorkerArgs),
    /// Say who may connect to a server
    #[command(subcommand)]
    User(UserCommands),
}

/// What is done to a file of users.
#[derive(Debug, Subcommand)]
pub enum UserCommands {
    /// Add a user, or give one another password and role. The password is asked for, or read from standard input
    Add {
        /// The user's name
        name: String,
        /// File of the users, made if it is not there; `dovetail server --users` reads it
        #[arg(long, value_name = "FILE")]
        users: PathBuf,
        /// What the user may do
        #[arg(long, value_enum, default_value_t = UserRole::ReadOnly)]
        role: UserRole,
    },
}

/// What a user of a server may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UserRole {
    /// Run queries, with temporary tables and settings of its session
    ReadOnly,
    /// Make and drop tables too, and add rows
    ReadWrite,
}

impl From<UserRole> for Role {
    fn from(role: UserRole) -> Role {
        match role {
            UserRole::ReadOnly => Role::ReadOnly,
            UserRole::ReadWrite => Role::ReadWrite,
        }
    }
}

/// What is served, where and to whom.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// Folder or URL to serve: each Parquet file or sub-folder in it is a table
    #[arg(value_name = "DIR_OR_URL")]
    pub place: Option<String>,
    /// Folder for tables that clients send with bulk ingestion (adbc_ingest): each is a sub-folder of Parquet files
    #[arg(long, value_name = "DIR")]
    pub warehouse: Option<PathBuf>,
    /// Where to listen; port 0 picks a free one, which is told on standard error
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:31337")]
    pub listen: String,
    /// Listen without TLS or without a token even where other machines can reach the port: anyone who does can
    /// then read all data and run queries
    #[arg(long)]
    pub insecure: bool,
    /// File of those who may connect with a name and a password, see `dovetail user add`. The token is then for
    /// workers, and for those who may do everything
    #[arg(long, value_name = "FILE", requires = "token_file")]
    pub users: Option<PathBuf>,
    /// Start so many workers on this machine, and run queries on them; memory and threads are shared out evenly
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with = "scheduler")]
    pub local_workers: Option<usize>,
    /// Write down in this directory how far queries are that workers run, so that they go on when the server has died
    /// and is started again with it; without it they end with the server. Also keep there a record of every statement,
    /// which system.audit shows
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// How long to keep the records of system.audit
    #[arg(long, value_name = "DAYS", requires = "state_dir", default_value_t = AUDIT_DAYS)]
    pub audit_days: u32,
    /// The most rows that a query's result may have; sessions may lower it with SET max_result_rows
    /// [default: any number]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_result_rows: Option<usize>,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub security: SecurityArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// What one user of a server may have at a time; those who show the token, or nothing, are one user together.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct LimitArgs {
    /// Statements of one user that run at a time [default: 256, as of all users together]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_queries_per_user: Option<usize>,
    /// Sessions of one user [default: 250; of all users together 1000]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub max_sessions_per_user: Option<usize>,
    /// Memory that the statements of one user may hold together: 512MB, 2GiB, or a share such as 25% of --memory-limit;
    /// beyond it they spill to disk. Counted is what the server's process holds: what it runs itself, temporary tables,
    /// and results on their way. Where workers run a query, it may hold as much at each of them
    /// [default: no limit but --memory-limit]
    #[arg(long, value_name = "SIZE")]
    pub memory_per_user: Option<MemoryLimit>,
    /// The same for each session, and for each call of a client that has none
    #[arg(long, value_name = "SIZE")]
    pub memory_per_session: Option<MemoryLimit>,
}

impl LimitArgs {
    /// The server's own form of these bounds, of a process that has `memory` bytes.
    ///
    /// # Errors
    /// A part of the memory is more than the whole, or too little for a query.
    pub fn limits(self, memory: u64) -> anyhow::Result<Limits> {
        let of_user = part_of(memory, LimitScope::Process, self.memory_per_user, LimitScope::User)?;
        let (whole, scope) = match of_user {
            Some(bytes) => (bytes, LimitScope::User),
            None => (memory, LimitScope::Process),
        };
        // A share is one of the whole memory, not of a user's part.
        let of_session = self.memory_per_session.map(|limit| MemoryLimit::Bytes(limit.bytes_of(memory)));
        let of_session = part_of(whole, scope, of_session, LimitScope::Session)?;
        let usual = Limits::default();
        Ok(Limits {
            running_per_user: self.max_queries_per_user.unwrap_or(usual.running_per_user),
            sessions_per_user: self.max_sessions_per_user.unwrap_or(usual.sessions_per_user),
            memory_per_user: of_user,
            memory_per_session: of_session,
            ..usual
        })
    }
}

/// The bytes of a part of the memory that another limit bounds.
fn part_of(
    whole: u64,
    of: LimitScope,
    part: Option<MemoryLimit>,
    scope: LimitScope,
) -> anyhow::Result<Option<u64>> {
    let Some(bytes) = part.map(|limit| limit.bytes_of(whole)) else { return Ok(None) };
    let (flag, whole_flag, told) = (scope.flag(), of.flag(), readable(bytes));
    if bytes > whole {
        let whole = readable(whole);
        anyhow::bail!(
            "{flag} is {told}, more than {whole_flag}, {whole} for this process: lower it, or leave it out"
        );
    }
    if bytes < MEMORY_LIMIT_BYTES_MIN {
        let least = readable(MEMORY_LIMIT_BYTES_MIN);
        anyhow::bail!("{flag} is {told}, too low for a query: {least} is the least");
    }
    Ok(Some(bytes))
}

/// Whom a worker works for, and with what.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkerArgs {
    /// The server to join, grpc://HOST:PORT or grpc+tls://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub scheduler: ServerAddress,
    /// Where other workers and the server fetch what this one has made; port 0 picks a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub listen: String,
    /// The URL by which they reach it, where that is not the address it listens on
    #[arg(long, value_name = "URL")]
    pub advertise: Option<ServerAddress>,
    /// Tasks at a time [default: one for each core]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub threads: Option<usize>,
    /// Memory that tasks may hold: 512MB, 2GiB or a share such as 50%; beyond it they spill to disk
    /// [default: 80% of what the machine or the container has]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<MemoryLimit>,
    /// Directory to spill to, or DIR=SIZE with the most that may lie there; may be given several times
    /// [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR[=SIZE]", value_parser = parse_spill_directory)]
    pub temp_dir: Vec<SpillDirectory>,
    /// Listen without TLS or without a token even where other machines can reach the port: anyone who does can
    /// then read what queries make
    #[arg(long)]
    pub insecure: bool,
    /// Spill whatever can be spilled, however much memory there is: for tests
    #[arg(long, hide = true)]
    pub spill_always: bool,
    /// End when standard input does: for workers that a server starts
    #[arg(long, hide = true)]
    pub attached: bool,
    #[command(flatten)]
    pub security: SecurityArgs,
}

/// How connections are protected, for both ends.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SecurityArgs {
    /// Certificate that this process shows to the other side, in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of that certificate, in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Certificate of the authority that must have signed the other side's, in PEM form; a server with it
    /// refuses clients without a certificate
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// File with the token that clients must show; 16 characters or more
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// How queries are executed.
#[derive(Debug, Clone, clap::Args)]
pub struct EngineArgs {
    /// Threads that run queries [default: one for each core]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub threads: Option<usize>,
    /// Partitions that large joins and group-bys are cut into; a server's workers choose themselves
    /// [default: chosen by size]
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

impl SecurityArgs {
    /// The files to read.
    pub fn files(&self) -> SecurityFiles {
        SecurityFiles {
            cert: self.tls_cert.clone(),
            key: self.tls_key.clone(),
            authority: self.tls_ca.clone(),
            token: self.token_file.clone(),
            users: None,
        }
    }

    /// A flag that was given, if one was.
    pub fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--tls-cert", self.tls_cert.is_some()),
            ("--tls-key", self.tls_key.is_some()),
            ("--tls-ca", self.tls_ca.is_some()),
            ("--token-file", self.token_file.is_some()),
        ];
        given.into_iter().find_map(|(flag, given)| given.then_some(flag))
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
    fn a_connection_has_nothing_of_the_engine() {
        let url = "grpc://localhost:1";
        let args = Args::try_parse_from(["dovetail", "--connect", url, "-c", "SELECT 1"]).unwrap();
        assert_eq!(args.connect.unwrap().to_string(), url);
        for words in
            [&["data"][..], &["--threads", "2"], &["--memory-limit", "1GB"], &["--scheduler", "threads"]]
        {
            let words = [&["dovetail", "--connect", url], words].concat();
            assert!(Args::try_parse_from(words).is_err());
        }
        assert!(Args::try_parse_from(["dovetail", "--connect", "localhost"]).is_err());
        assert!(Args::try_parse_from(["dovetail", "server", "--tls-cert", "a"]).is_err());
    }

    #[test]
    fn a_user_and_a_session_have_parts_of_the_memory() {
        const GIB: u64 = 1 << 30;
        let limits = |words: &[&str]| {
            let args = Args::try_parse_from([&["dovetail", "server"], words].concat()).unwrap();
            let Some(Subcommands::Server(server)) = args.command else { panic!("a server") };
            let limits = server.limits.limits(GIB).map_err(|e| e.to_string())?;
            Ok::<_, String>((limits.memory_per_user, limits.memory_per_session))
        };
        assert_eq!(limits(&[]).unwrap(), (None, None));
        let both = limits(&["--memory-per-user", "50%", "--memory-per-session", "256MiB"]).unwrap();
        assert_eq!(both, (Some(GIB / 2), Some(GIB / 4)));
        let shares = limits(&["--memory-per-user", "50%", "--memory-per-session", "25%"]).unwrap();
        assert_eq!(shares, both);
        for (words, told) in [
            (
                &["--memory-per-user", "2GiB"][..],
                "--memory-per-user is 2.0 GiB, more than --memory-limit, 1.0 GiB",
            ),
            (&["--memory-per-session", "2GiB"], "--memory-per-session is 2.0 GiB, more than --memory-limit"),
            (
                &["--memory-per-user", "10%", "--memory-per-session", "20%"],
                "more than --memory-per-user, 102.4 MiB",
            ),
            (&["--memory-per-session", "1%"], "--memory-per-session is 10.2 MiB, too low"),
        ] {
            let error = limits(words).unwrap_err();
            assert!(error.contains(told), "{words:?}: {error}");
        }
        for size in ["1MB", "0%", "lots", "512"] {
            let words = ["dovetail", "server", "--memory-per-user", size];
            assert!(Args::try_parse_from(words).is_err(), "{size}");
        }
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
