//! `dovetail worker`: runs tasks for a server until it is told to end; and the workers that a server starts for
//! itself.
//!
//! What always holds: a worker that is told to end finishes what it runs and stays until nothing that it holds is
//! needed; a second word ends it at once. Workers of a server end with the server, however that ends.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use dovetail_engine::{MemoryLimit, SessionOptions, SpillPolicy};
use dovetail_server::Listening;
use dovetail_server::worker::{self, WorkerOptions};
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::allocator::keep_freed_memory;
use crate::args::{ServerArgs, WorkerArgs};
use crate::server::network;

/// For connections that are open when the worker ends.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Between the end of a local worker and the start of the next in its place.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Works until it is told to end.
pub fn run(args: &WorkerArgs) -> Result<()> {
    if args.memory_limit.is_none() {
        keep_freed_memory();
    }
    let listening = Listening::bind(&args.listen, args.security.files().read()?, args.insecure)?;
    let options = WorkerOptions {
        scheduler: args.scheduler.to_string(),
        advertise: args.advertise.as_ref().map(ToString::to_string),
        threads: args.threads.unwrap_or_else(|| SessionOptions::default().threads),
        memory_limit: args.memory_limit.unwrap_or_default(),
        spill_directories: args.temp_dir.clone(),
        spill: if args.spill_always { SpillPolicy::Always } else { SpillPolicy::AtLimit },
    };
    if args.attached {
        std::thread::spawn(end_with_standard_input);
    }
    let runtime = network()?;
    let outcome = runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::spawn(async move {
            for _ in 0..2 {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if stop.send_replace(true) {
                    // Told a second time.
                    std::process::exit(130);
                }
            }
        });
        writeln!(io::stderr(), "working for {} at {}", options.scheduler, listening.url())?;
        Ok(worker::run(options, listening, stopped).await?)
    });
    runtime.shutdown_timeout(SHUTDOWN);
    outcome
}

fn end_with_standard_input() {
    let mut rest = vec![];
    // Nothing is ever said; an error is an end, too.
    let _ = io::stdin().read_to_end(&mut rest);
    std::process::exit(0);
}

/// What each process of a server with workers of its own may use.
pub struct Shares {
    pub memory_limit: MemoryLimit,
    threads: usize,
}

impl Shares {
    /// The server keeps one share of the memory, for results.
    pub fn of(args: &ServerArgs, options: &SessionOptions) -> Shares {
        let whole = options.memory_limit.unwrap_or_default();
        match args.local_workers {
            None => Shares { memory_limit: whole, threads: options.threads },
            Some(workers) => Shares {
                memory_limit: MemoryLimit::Bytes(whole.bytes() / (workers as u64 + 1)),
                threads: options.threads.div_ceil(workers),
            },
        }
    }
}

/// Workers on this machine. Dropped, they end.
pub struct LocalWorkers {
    is_stopping: Arc<AtomicBool>,
    children: Arc<Mutex<Vec<Option<Child>>>>,
    watchers: Vec<JoinHandle<()>>,
}

impl LocalWorkers {
    /// Starts as many as the server was told to.
    pub fn start(url: &str, args: &ServerArgs, shares: &Shares) -> Result<LocalWorkers> {
        let count = args.local_workers.unwrap_or(0);
        let children: Arc<Mutex<Vec<Option<Child>>>> = Arc::default();
        children.lock().resize_with(count, || None);
        let mut workers = LocalWorkers { is_stopping: Arc::default(), children, watchers: vec![] };
        for number in 0..count {
            let mut command = command(url, args, shares)?;
            workers.children.lock()[number] = Some(command.spawn().context("cannot start a worker")?);
            let (children, is_stopping) = (workers.children.clone(), workers.is_stopping.clone());
            workers
                .watchers
                .push(std::thread::spawn(move || watch(number, &mut command, &children, &is_stopping)));
        }
        Ok(workers)
    }
}

/// Starts a worker again when it has ended by itself.
fn watch(
    number: usize,
    command: &mut Command,
    children: &Mutex<Vec<Option<Child>>>,
    is_stopping: &AtomicBool,
) {
    loop {
        std::thread::sleep(RESTART_PAUSE / 4);
        if is_stopping.load(Ordering::Relaxed) {
            return;
        }
        let ended = match &mut children.lock()[number] {
            Some(child) => child.try_wait().ok().flatten(),
            None => None,
        };
        let Some(status) = ended else { continue };
        tracing::warn!(%status, "a local worker has ended; another is started");
        std::thread::sleep(RESTART_PAUSE);
        if !is_stopping.load(Ordering::Relaxed) {
            children.lock()[number] = command.spawn().ok();
        }
    }
}

impl Drop for LocalWorkers {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        for watcher in self.watchers.drain(..) {
            let _ = watcher.join();
        }
        for child in self.children.lock().iter_mut().flatten() {
            // The server's queries are over: nothing is needed of it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The command line of a worker of the server.
fn command(url: &str, args: &ServerArgs, shares: &Shares) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's file")?);
    command.args(["worker", "--attached", "--scheduler", url]);
    command.args(["--threads", &shares.threads.to_string()]);
    command.arg("--memory-limit").arg(format!("{}B", shares.memory_limit.bytes()));
    for directory in &args.engine.temp_dir {
        let quota = directory.quota_bytes.map_or(String::new(), |q| format!("={q}B"));
        let mut word = directory.path.clone().into_os_string();
        word.push(quota);
        command.arg("--temp-dir").arg(word);
    }
    let security = &args.security;
    for (flag, file) in [
        ("--tls-cert", &security.tls_cert),
        ("--tls-key", &security.tls_key),
        ("--tls-ca", &security.tls_ca),
        ("--token-file", &security.token_file),
    ] {
        if let Some(file) = file {
            command.arg(flag).arg(file);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    Ok(command)
}
