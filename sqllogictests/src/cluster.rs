//! A cluster for tests: the scheduler in this process, its workers as processes of their own.
//!
//! A test binary of ours is a worker, too: called with `worker` as its first word it does what `dovetail worker`
//! does, and likewise with `server` ([`became_a_process`]). So the tests need no other binary, and what they run is what was compiled with them.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use dovetail_cli::args::Args;
use dovetail_cli::run::{exit_code, run};
use dovetail_engine::Session;
use dovetail_server::Listening;
use dovetail_server::cluster::{Recovery, SchedulerSide};
use dovetail_server::security::SecurityFiles;
use tokio::runtime::Runtime;

/// For workers to start.
const START_MAX: Duration = Duration::from_secs(60);

/// Whether this process was called as a worker or a server, and how that ended.
pub fn became_a_process() -> Option<ExitCode> {
    let word = std::env::args().nth(1);
    matches!(word.as_deref(), Some("worker" | "server")).then(|| exit_code(run(Args::parse())))
}

/// A session's workers. Dropped, they end.
pub struct Cluster {
    workers: Vec<Child>,
    scheduler: SchedulerSide,
    url: String,
    address: SocketAddr,
    security: SecurityFiles,
    runtime: Option<Runtime>,
}

impl Cluster {
    /// Workers that run the session's queries from now on, each with the further words on its command line.
    pub fn start(session: &Arc<Session>, workers: usize, words: &[&str]) -> Result<Cluster> {
        Cluster::with_recovery(session, workers, words, Recovery::On)
    }

    /// [`Self::start`] with or without recovery from faults.
    pub fn with_recovery(
        session: &Arc<Session>,
        workers: usize,
        words: &[&str],
        recovery: Recovery,
    ) -> Result<Cluster> {
        let mut cluster = Cluster::without_workers(session, SecurityFiles::default(), recovery)?;
        for _ in 0..workers {
            cluster.add(words)?;
        }
        cluster.wait_for_slots(workers as u32)?;
        Ok(cluster)
    }

    /// The scheduler alone, with what protects its connections and those of the workers that are added.
    pub fn without_workers(
        session: &Arc<Session>,
        security: SecurityFiles,
        recovery: Recovery,
    ) -> Result<Cluster> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (scheduler, url, address) = runtime.block_on(async {
            let listening = Listening::bind("127.0.0.1:0", security.read()?, false)?;
            let (url, address) = (listening.url(), listening.address());
            let scheduler = SchedulerSide::start(session, listening.security(), recovery, None)?;
            tokio::spawn(listening.serve(scheduler.routes(session.clone()), std::future::pending()));
            Ok::<_, anyhow::Error>((scheduler, url, address))
        })?;
        Ok(Cluster { workers: vec![], scheduler, url, address, security, runtime: Some(runtime) })
    }

    /// One worker more, of one thread. It may take a moment to join.
    pub fn add(&mut self, words: &[&str]) -> Result<()> {
        let url = self.url.clone();
        self.add_through(&url, words)
    }

    /// [`Self::add`] with another way to the scheduler.
    pub fn add_through(&mut self, url: &str, words: &[&str]) -> Result<()> {
        let mut command = self.command(url, words)?;
        let SecurityFiles { cert, key, authority, token, users: _ } = &self.security;
        let files =
            [("--tls-cert", cert), ("--tls-key", key), ("--tls-ca", authority), ("--token-file", token)];
        for (flag, file) in files {
            if let Some(file) = file {
                command.arg(flag).arg(file);
            }
        }
        self.add_started(&mut command)
    }

    /// A worker that `command` starts, which was made by [`Self::command`].
    pub fn add_started(&mut self, command: &mut Command) -> Result<()> {
        self.workers.push(command.spawn().context("a worker cannot be started")?);
        Ok(())
    }

    /// The command line of a worker that nothing protects.
    pub fn command(&self, url: &str, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", "--attached", "--threads", "1", "--scheduler", url]).args(words);
        // Its log is for who looks at one test by hand.
        let told = if std::env::var_os("DOVETAIL_LOG").is_some() { Stdio::inherit() } else { Stdio::null() };
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(told);
        Ok(command)
    }

    /// Waits until the workers that are there can run so many tasks.
    pub fn wait_for_slots(&self, slots: u32) -> Result<()> {
        let start = Instant::now();
        while self.scheduler.slots() != slots {
            if start.elapsed() > START_MAX {
                bail!("{} of {slots} slots are there after {START_MAX:?}", self.scheduler.slots());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Where the scheduler listens, as workers write it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the scheduler listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tasks that all workers together can run at a time, as far as the scheduler knows.
    pub fn slots(&self) -> u32 {
        self.scheduler.slots()
    }

    /// The process of a worker, in the order of starting.
    pub fn worker(&mut self, number: usize) -> &mut Child {
        &mut self.workers[number]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // Some tests have ended it already.
            let _ = worker.kill();
            let _ = worker.wait();
        }
        if let Some(runtime) = self.runtime.take() {
            // The session goes with the last call; that must not be on one of the runtime's own threads.
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}
