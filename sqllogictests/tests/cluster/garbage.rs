//! What comes to the ports that nobody should send: other versions, other protocols, absurd tickets. It is refused,
//! and the server and its workers go on.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow_flight::Ticket;
use arrow_flight::flight_service_client::FlightServiceClient;
use dovetail_engine::Session;
use dovetail_server::Connector;
use dovetail_server::cluster::Recovery;
use dovetail_server::control::control_client::ControlClient;
use dovetail_server::control::scheduler_message::Message as Answer;
use dovetail_server::control::worker_message::Message as Said;
use dovetail_server::control::{
    Fetch, Heartbeat, Hello, MemoryTable, OutputAttempt, PartitionRange, Refused, WorkerMessage,
};
use dovetail_server::security::{Security, SecurityFiles};
use dovetail_sqllogictests::cluster::Cluster;
use futures::stream;
use prost::Message;
use sqllogictest::harness::{Failed, Trial};
use tokio::runtime::Runtime;

use super::data::{query, session, text};
use super::links::free_port;
use super::run::{Outcome, must_be_right};

/// More than a message may have.
const TOO_LARGE_BYTES: usize = 65 << 20;

/// A port that has not closed a connection with garbage by then is patient; it is left.
const PATIENCE: Duration = Duration::from_millis(300);

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("a worker of another version is refused", other_version),
        Trial::test("garbage on the ports", garbage),
        Trial::test("absurd tickets", tickets),
    ]
}

/// A server with one worker whose port is known.
struct World {
    cluster: Cluster,
    session: Arc<Session>,
    worker: SocketAddr,
    runtime: Runtime,
}

impl World {
    fn start() -> Result<World, Failed> {
        let session = session();
        let mut cluster = Cluster::without_workers(&session, SecurityFiles::default(), Recovery::Off)?;
        let worker = free_port()?;
        cluster.add(&["--listen", &worker.to_string()])?;
        cluster.wait_for_slots(1)?;
        Ok(World { cluster, session, worker, runtime: Runtime::new()? })
    }

    /// The same server and the same worker still answer.
    fn must_answer(&mut self) -> Result<(), Failed> {
        let sql = query(5);
        let result = self.session.execute(&sql).map_err(|e| e.to_string())?;
        must_be_right(&Outcome::Answered(text(&result)), &sql)?;
        match self.cluster.worker(0).try_wait()? {
            None if self.cluster.slots() == 1 => Ok(()),
            _ => Err("the worker is lost".into()),
        }
    }

    /// What a stranger is told who joins with these messages: nothing, if the connection is cut.
    fn joins(&self, said: Vec<Said>) -> Result<Option<Answer>, String> {
        let url = format!("grpc://{}", self.cluster.address());
        self.runtime.block_on(async {
            let connector = Connector::new(Security::default()).map_err(|e| e.to_string())?;
            let channel = connector.connect(&url).await.map_err(|e| e.to_string())?;
            let messages = said.into_iter().map(|message| WorkerMessage { message: Some(message) });
            let joined = ControlClient::new(channel).join(stream::iter(messages.collect::<Vec<_>>())).await;
            let mut answers = joined.map_err(|status| status.message().to_owned())?.into_inner();
            let first = answers.message().await.map_err(|status| status.message().to_owned())?;
            Ok(first.and_then(|m| m.message))
        })
    }

    /// The error with which a ticket is answered, or the number of messages.
    fn fetches(&self, from: SocketAddr, ticket: Vec<u8>) -> Result<usize, String> {
        let url = format!("grpc://{from}");
        self.runtime.block_on(async {
            let connector = Connector::new(Security::default()).map_err(|e| e.to_string())?;
            let channel = connector.connect(&url).await.map_err(|e| e.to_string())?;
            let asked = FlightServiceClient::new(channel).do_get(Ticket::new(ticket)).await;
            let mut rows = asked.map_err(|status| status.message().to_owned())?.into_inner();
            let mut messages = 0;
            while rows.message().await.map_err(|status| status.message().to_owned())?.is_some() {
                messages += 1;
            }
            Ok(messages)
        })
    }
}

fn hello() -> Hello {
    Hello { version: env!("CARGO_PKG_VERSION").into(), slots: 1, ..Hello::default() }
}

fn other_version() -> Result<(), Failed> {
    let mut world = World::start()?;
    let another = Hello { protocol: 4711, version: "9.8.7".into(), ..hello() };
    let answer = world.joins(vec![Said::Hello(another)])?;
    let Some(Answer::Refused(Refused { reason })) = answer else {
        return Err(format!("it is not refused: {answer:?}").into());
    };
    for word in ["9.8.7", "4711", env!("CARGO_PKG_VERSION"), "same version"] {
        if !reason.contains(word) {
            return Err(format!("the refusal does not say '{word}': {reason}").into());
        }
    }
    world.must_answer()
}

fn garbage() -> Result<(), Failed> {
    let mut world = World::start()?;
    for port in [world.cluster.address(), world.worker] {
        for bytes in strange_bytes() {
            send(port, &bytes)?;
        }
        // Many that say nothing.
        let silent: Vec<_> = (0..100).map_while(|_| TcpStream::connect(port).ok()).collect();
        if silent.len() != 100 {
            return Err(format!("{} of 100 connections were made", silent.len()).into());
        }
        world.must_answer()?;
    }
    let refused = world.joins(vec![Said::Heartbeat(Heartbeat::default())]);
    if !refused.as_ref().is_err_and(|e| e.contains("hello first")) {
        return Err(format!("a worker without a name joins: {refused:?}").into());
    }
    let refused = world.joins(vec![Said::Hello(Hello { name: "x".repeat(TOO_LARGE_BYTES), ..hello() })]);
    if !refused.as_ref().is_err_and(|e| e.contains("too large")) {
        return Err(format!("a message of {TOO_LARGE_BYTES} bytes is taken: {:?}", refused.is_ok()).into());
    }
    world.must_answer()
}

/// What other programs, and people who look for weak spots, send.
fn strange_bytes() -> Vec<Vec<u8>> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut noise = vec![];
    let mut state = 7u64;
    for _ in 0..(1 << 20) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.push((state >> 56) as u8);
    }
    // A frame of 16 MB, SETTINGS of half a parameter, HEADERS without a stream.
    let frames =
        [[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], [0, 0, 3, 4, 0, 0, 0, 0, 0], [0, 0, 1, 1, 4, 0, 0, 0, 0]];
    let with_preface = |rest: &[u8]| [PREFACE, rest].concat();
    let mut all = vec![
        noise.clone(),
        with_preface(&noise),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        // The start of a TLS hello.
        [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &noise[..500]].concat(),
        PREFACE[..10].to_vec(),
        vec![0; 1 << 16],
    ];
    all.extend(frames.iter().map(|frame| with_preface(frame)));
    all
}

fn send(port: SocketAddr, bytes: &[u8]) -> Result<(), Failed> {
    let mut stream = TcpStream::connect(port)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // It may be cut off at any point, or not be answered at all.
    let _ = stream.write_all(bytes);
    let mut answer = vec![];
    let _ = (&mut stream).take(1 << 16).read_to_end(&mut answer);
    let _ = stream.shutdown(Shutdown::Both);
    Ok(())
}

/// While a query runs, whose outputs are asked for in absurd ways.
fn tickets() -> Result<(), Failed> {
    let mut world = World::start()?;
    let outputs = || (0..4).map(|partition| OutputAttempt { partition, attempt: 0 }).collect::<Vec<_>>();
    let nothing = Fetch { query: 1 << 60, stage: 0, outputs: outputs(), ..Fetch::default() };
    for (port, told) in [(world.cluster.address(), "no outputs are here"), (world.worker, "is over")] {
        let refused = world.fetches(port, nothing.encode_to_vec());
        if !refused.as_ref().is_err_and(|e| e.contains(told)) {
            return Err(format!("a query that is not there is answered: {refused:?}").into());
        }
        let table = Fetch { table: Some(MemoryTable { id: u64::MAX, version: 3 }), ..Fetch::default() };
        for bytes in [table.encode_to_vec(), vec![0xff; 100], vec![8, 0xff, 0xff], vec![]] {
            if let Ok(messages) = world.fetches(port, bytes.clone())
                && messages > 0
            {
                return Err(format!("the ticket {bytes:?} is answered with {messages} messages").into());
            }
        }
    }
    let sql = query(9);
    let is_over = AtomicBool::new(false);
    let (result, absurd) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answered = vec![];
            for (number, (start, end)) in
                [(0, u32::MAX), (u32::MAX, 0), (u32::MAX, u32::MAX), (7, 3)].into_iter().cycle().enumerate()
            {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let (stage, partitions) = ((number / 4 % 24) as u32, Some(PartitionRange { start, end }));
                // The queries of this session count from 0.
                let fetch = Fetch { query: 0, stage, outputs: outputs(), partitions, table: None };
                if let Ok(messages) = world.fetches(world.worker, fetch.encode_to_vec()) {
                    answered.push(format!("{start}..{end} of stage {stage}: {messages} messages"));
                }
            }
            answered
        });
        let result = world.session.execute(&sql);
        is_over.store(true, Ordering::Relaxed);
        (result, asking.join().expect("asking does not panic"))
    });
    must_be_right(&Outcome::Answered(text(&result.map_err(|e| e.to_string())?)), &sql)?;
    if !absurd.is_empty() {
        return Err(format!("absurd tickets are answered: {absurd:?}").into());
    }
    world.must_answer()
}
