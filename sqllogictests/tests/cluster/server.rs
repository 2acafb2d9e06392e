//! A cluster of which the scheduler is a process, too, and can be killed and started again in the same place.
//!
//! What has run is read from the workers' logs, where each says which task it has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::data;
use super::losses::signal_to;

/// For a server to answer and its workers to join.
const START_MAX: Duration = Duration::from_secs(60);

/// A task: stage and partition.
pub type Task = (u32, u32);

/// The processes, and the folder with their logs and the server's state.
pub struct Processes {
    pub address: SocketAddr,
    pub folder: tempfile::TempDir,
    with_state: bool,
    server: Child,
    workers: Vec<Child>,
    starts: usize,
}

impl Processes {
    /// A server with so many workers of one thread each, which have joined.
    pub fn start(workers: usize, with_state: bool) -> Result<Processes, String> {
        Self::start_with(workers, with_state, &[])
    }

    /// [`Self::start`] with more options of the workers.
    pub fn start_with(workers: usize, with_state: bool, options: &[&str]) -> Result<Processes, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        // A port that is free now; who takes it in between fails the test by name.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let address = port.map_err(|e| e.to_string())?;
        let server = server(&folder, address, with_state, 0)?;
        let mut all = Processes { address, folder, with_state, server, workers: vec![], starts: 1 };
        for number in 0..workers {
            let url = all.url();
            let words = ["worker", "--attached", "--threads", "1", "--scheduler", &url];
            let words: Vec<String> = words.iter().chain(options).map(|&word| word.to_owned()).collect();
            let worker = process(&words, &all.folder, &format!("worker-{number}"))?;
            all.workers.push(worker);
        }
        all.wait_for(" worker joins ", workers)?;
        Ok(all)
    }

    pub fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    /// Kills the server; what its log has until then.
    pub fn kill_server(&mut self) {
        // It has not been waited for, so it is still its own.
        self.server.kill().and_then(|()| self.server.wait()).expect("the server can be killed");
    }

    /// Tells the server to end, and waits until it has.
    pub fn end_server(&mut self) {
        signal_to(self.server.id(), "-TERM");
        self.server.wait().expect("the server can be waited for");
    }

    pub fn kill_worker(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        worker.kill().and_then(|()| worker.wait()).expect("a worker can be killed");
    }

    /// Sends a signal to all workers.
    pub fn signal_workers(&self, signal: &str) {
        self.workers.iter().for_each(|worker| signal_to(worker.id(), signal));
    }

    /// Starts the server again, in the same place.
    pub fn start_server(&mut self) -> Result<(), String> {
        self.server = server(&self.folder, self.address, self.with_state, self.starts)?;
        self.starts += 1;
        Ok(())
    }

    /// The logs of the queries that the server has not ended.
    pub fn query_logs(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("state/queries");
        fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect()
    }

    /// Waits until the server's present log has so many lines with the words.
    pub fn wait_for(&self, words: &str, times: usize) -> Result<(), String> {
        let start = Instant::now();
        while self.server_log().lines().filter(|l| l.contains(words)).count() < times {
            if start.elapsed() > START_MAX {
                return Err(format!("no {times} times '{words}' in the log:\n{}", self.server_log()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// What the present server has logged.
    pub fn server_log(&self) -> String {
        let name = format!("server-{}.log", self.starts - 1);
        // None yet: nothing was logged.
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// How often each task has ended at a worker, over all queries.
    pub fn ended(&self) -> BTreeMap<Task, usize> {
        let mut ended = BTreeMap::new();
        for task in (0..self.workers.len()).flat_map(|worker| self.ended_at(worker)) {
            *ended.entry(task).or_default() += 1;
        }
        ended
    }

    /// The tasks that have ended at a worker, one after the other.
    pub fn ended_at(&self, worker: usize) -> impl Iterator<Item = Task> {
        let log = self.folder.path().join(format!("worker-{worker}.log"));
        let text = fs::read_to_string(log).unwrap_or_default();
        let lines = text.lines().filter(|l| l.contains("a task has ended"));
        let tasks: Vec<Task> =
            lines.filter_map(|line| Some((field(line, " stage=")?, field(line, " task=")?))).collect();
        tasks.into_iter()
    }
}

/// Stages all of whose tasks are among the ended.
pub fn whole_stages(ended: &BTreeMap<Task, usize>, all: &BTreeSet<Task>) -> BTreeSet<u32> {
    let stages: BTreeSet<u32> = all.iter().map(|(stage, _)| *stage).collect();
    let is_whole = |stage: &u32| all.iter().filter(|(s, _)| s == stage).all(|task| ended.contains_key(task));
    stages.into_iter().filter(is_whole).collect()
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in self.workers.iter_mut().chain([&mut self.server]) {
            // Some tests have ended it already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn field(line: &str, name: &str) -> Option<u32> {
    let rest = line.split_once(name)?.1;
    rest.split(' ').next()?.parse().ok()
}

fn server(
    folder: &tempfile::TempDir,
    address: SocketAddr,
    with_state: bool,
    number: usize,
) -> Result<Child, String> {
    let mut words = vec!["server".to_owned(), data::folder().to_string_lossy().into_owned()];
    words.extend(["--listen".to_owned(), address.to_string(), "--threads".to_owned(), "2".to_owned()]);
    if with_state {
        words.extend(["--state-dir".to_owned(), folder.path().join("state").to_string_lossy().into_owned()]);
    }
    process(&words, folder, &format!("server-{number}"))
}

fn process(words: &[String], folder: &tempfile::TempDir, name: &str) -> Result<Child, String> {
    let log = File::create(folder.path().join(format!("{name}.log"))).map_err(|e| e.to_string())?;
    let mut command = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
    command.args(words).env("DOVETAIL_LOG", "dovetail_server=debug").env("NO_COLOR", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
    command.spawn().map_err(|e| e.to_string())
}
