//! The scheduler's side of a cluster alone: what a task costs it.
//!
//! `cargo bench --workspace --bench driver` prints microseconds of CPU time a task, of the driver's thread and of the
//! whole process. The real driver and its real connections run a query of 20,000 tasks; the workers, in a process of
//! their own, do nothing but to say at once that each task has ended and that its output is empty. CPU times come
//! from `/proc`, so this is for Linux.

use std::error::Error;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use dovetail_engine::memory::{Governor, SpillSpace};
use dovetail_engine::session::cluster::{Cluster, ClusterQuery};
use dovetail_engine::task::QueryContext;
use dovetail_engine::{Session, SessionOptions};
use dovetail_planner::graph::{Edge, EdgeKind, Place, StageId, TaskGraph};
use dovetail_planner::pipeline::{Branch, NO_OPERATOR, QueryGraph, QueryStage, Sink, Source, StageWork};
use dovetail_server::cluster::{PROTOCOL, Recovery, SchedulerSide};
use dovetail_server::control::control_client::ControlClient;
use dovetail_server::control::scheduler_message::Message;
use dovetail_server::control::{
    Heartbeat, HeldAll, Hello, Report, Run, TaskFinished, WorkerMessage, worker_message,
};
use dovetail_server::security::Security;
use dovetail_server::{Connector, Listening};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const STAGES: u32 = 100;
const TASKS: u32 = 200;
const PARTITIONS: u32 = 64;
const WORKERS: u32 = 4;
const SLOTS: u32 = 16;
const HEARTBEAT: Duration = Duration::from_millis(500);

/// The first word of the process that pretends to be the workers.
const WORKERS_PROCESS: &str = "pretend-workers";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().collect();
    match words.iter().position(|w| w == WORKERS_PROCESS) {
        Some(at) => Runtime::new()?.block_on(pretend(words[at + 1].clone())),
        None => measure(),
    }
}

fn measure() -> Result<()> {
    let session = Arc::new(Session::new(SessionOptions { threads: 1, ..SessionOptions::default() })?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (scheduler, url) = runtime.block_on(async {
        let listening = Listening::bind("127.0.0.1:0", Security::default(), false)?;
        let url = listening.url();
        let scheduler = SchedulerSide::start(&session, listening.security(), Recovery::On, None)?;
        tokio::spawn(listening.serve(scheduler.routes(session.clone()), std::future::pending()));
        Ok::<_, dovetail_server::ServerError>((scheduler, url))
    })?;
    let _workers = Workers::start(&url)?;
    while scheduler.slots() != WORKERS * SLOTS {
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("{:<12}{:>10}{:>24}{:>24}{:>12}", "", "tasks", "driver us/task", "process us/task", "seconds");
    for name in ["first", "second", "third"] {
        run(name, &*scheduler.cluster())?;
    }
    Ok(())
}

fn run(name: &str, cluster: &dyn Cluster) -> Result<()> {
    let graph = chain();
    let tasks = graph.task_count();
    let context = QueryContext::bounded(1, Governor::unlimited(), SpillSpace::default().query());
    let query = ClusterQuery {
        graph,
        result: StageId(STAGES),
        context: Arc::new(context),
        operators: 1,
        durable: None,
        capability: None,
    };
    let (start, before) = (Instant::now(), CpuTimes::now()?);
    cluster.run(query)?.wait_for_all()?;
    let (seconds, after) = (start.elapsed().as_secs_f64(), CpuTimes::now()?);
    let a_task = |ns: u64| ns as f64 / 1e3 / tasks as f64;
    println!(
        "{name:<12}{tasks:>10}{:>24.1}{:>24.1}{seconds:>12.2}",
        a_task(after.driver_ns - before.driver_ns),
        a_task(after.process_ns - before.process_ns),
    );
    Ok(())
}

/// Stages of which each reads all of the one before it, and one at home that brings nothing.
fn chain() -> QueryGraph {
    let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    let stage = |id: u32, tasks: u32, place, source, sink| {
        let from = |from| Edge { from: StageId(from), kind: EdgeKind::Hash };
        let branch = Branch {
            tasks,
            source,
            source_schema: schema.clone(),
            source_operator: NO_OPERATOR,
            steps: vec![],
        };
        let work = StageWork {
            branches: vec![branch],
            sink,
            sink_schema: schema.clone(),
            sink_operator: NO_OPERATOR,
        };
        let inputs = id.checked_sub(1).map(from).into_iter().collect();
        QueryStage { id: StageId(id), tasks, inputs, place, replayable: true, work }
    };
    let exchange = |id: u32| match id.checked_sub(1) {
        Some(before) => Source::Exchange { stage: StageId(before), shares: vec![] },
        None => Source::Nothing,
    };
    let sink = || Sink::HashPartition { keys: vec![], partitions: PARTITIONS };
    let mut stages: Vec<QueryStage> =
        (0..STAGES).map(|id| stage(id, TASKS, Place::Anywhere, exchange(id), sink())).collect();
    let last = Source::Collected { stage: StageId(STAGES - 1) };
    stages.push(stage(STAGES, 1, Place::Home, last, Sink::Collect));
    TaskGraph { stages, results: vec![StageId(STAGES)] }
}

/// The other process. Dropped, it ends.
struct Workers(Child);

impl Workers {
    fn start(url: &str) -> Result<Workers> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([WORKERS_PROCESS, url]).stdin(Stdio::piped());
        Ok(Workers(command.spawn()?))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn pretend(url: String) -> Result<()> {
    std::thread::spawn(|| {
        // Ends with the process that has started this one.
        let _ = std::io::stdin().read_to_end(&mut vec![]);
        std::process::exit(0);
    });
    let workers: Vec<_> = (0..WORKERS).map(|number| tokio::spawn(pretend_one(url.clone(), number))).collect();
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

async fn pretend_one(url: String, number: u32) -> Result<()> {
    let channel = Connector::new(Security::default())?.connect(&url).await?;
    let (sender, receiver) = mpsc::unbounded_channel();
    let gone = || std::io::Error::other("the scheduler is gone");
    let say = move |message| sender.send(WorkerMessage { message: Some(message) }).map_err(|_| gone());
    say(worker_message::Message::Hello(Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
        slots: SLOTS,
        // A worker that comes with the address of another is taken for the same one, come back.
        address: format!("grpc://pretend-{number}"),
        ..Hello::default()
    }))?;
    say(worker_message::Message::HeldAll(HeldAll {}))?;
    let mut client = ControlClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut told = client.join(UnboundedReceiverStream::new(receiver)).await?.into_inner();
    let mut beat = tokio::time::interval(HEARTBEAT);
    let report = Report { rows: vec![0; PARTITIONS as usize], ..Report::default() };
    loop {
        tokio::select! {
            message = told.message() => match message?.and_then(|m| m.message) {
                Some(Message::Run(Run { output })) => say(worker_message::Message::Finished(TaskFinished {
                    output,
                    report: Some(report.clone()),
                    counts: b"[]"[..].into(),
                }))?,
                Some(_) => {}
                None => return Ok(()),
            },
            _ = beat.tick() => say(worker_message::Message::Heartbeat(Heartbeat::default()))?,
        }
    }
}

/// Of this process, since it started.
struct CpuTimes {
    driver_ns: u64,
    process_ns: u64,
}

impl CpuTimes {
    fn now() -> Result<CpuTimes> {
        let mut times = CpuTimes { driver_ns: 0, process_ns: 0 };
        for thread in std::fs::read_dir("/proc/self/task")? {
            let thread = thread?.path();
            let on_cpu = std::fs::read_to_string(thread.join("schedstat"))?;
            let ns: u64 = on_cpu.split(' ').next().unwrap_or_default().parse()?;
            times.process_ns += ns;
            if std::fs::read_to_string(thread.join("comm"))?.trim() == "dovetail-driver" {
                times.driver_ns += ns;
            }
        }
        Ok(times)
    }
}
