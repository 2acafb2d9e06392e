//! One stay of a worker with a scheduler, from hello to the end of the stream.
//!
//! What always holds: ends of tasks go to the scheduler from before the worker has counted what it has, so that none
//! falls between the two; what is of another scheduler is dropped before a message of this one is obeyed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dovetail_engine::query::placed::{PlacedRun, Report, Surroundings as QuerySurroundings};
use dovetail_engine::scheduler::events::OutputId;
use dovetail_engine::task::{OperatorCounts, QueryContext};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::Surroundings;
use super::held::tell_held;
use crate::cluster::messages::{self, CONTROL_BYTES_MAX, PROTOCOL};
use crate::connect::connect_error;
use crate::control::control_client::ControlClient;
use crate::control::scheduler_message::Message;
use crate::control::{self, WorkerMessage, worker_message};
use crate::data::fetch::RemoteTables;
use crate::error::{Result, ServerError};
use crate::host::{Ends, Host, Readable, failure_of};
use crate::security::ClientAuth;

/// Messages to the scheduler that wait to be sent.
const MESSAGES_MAX: usize = 1 << 12;

/// Heartbeats within a lease.
const BEATS_PER_LEASE: u32 = 8;

/// A leaving worker goes after this time, whatever is still needed of it: it will be made again.
const LEAVE_MAX: Duration = Duration::from_secs(60);

/// Why a stay has ended.
pub enum Left {
    Dismissed,
    /// The connection is gone, or was never there.
    Lost {
        problem: String,
        was_there: bool,
    },
}

/// Sends the ends of tasks to whichever scheduler there is. While there is none they are told by what the worker has
/// when it joins again: an output that is there, an attempt that does not run any more.
#[derive(Default)]
pub struct Reports {
    outbound: Mutex<Option<mpsc::Sender<WorkerMessage>>>,
    /// Of the scheduler that the worker's queries are of.
    lineage: Mutex<Bytes>,
}

impl Ends for Reports {
    fn ended(
        &self,
        query: u64,
        output: OutputId,
        result: dovetail_engine::Result<(Report, Vec<OperatorCounts>)>,
    ) {
        let name = Some(control::Output::of(query, output));
        let message = match result {
            Ok((report, counts)) => worker_message::Message::Finished(control::TaskFinished {
                output: name,
                report: Some((&report).into()),
                counts: serde_json::to_vec(&counts).expect("invariant: counters serialise").into(),
            }),
            Err(error) => failed(query, output, &error),
        };
        let outbound = self.outbound.lock().clone();
        if let Some(outbound) = outbound {
            // If the stream is gone, the next scheduler sees what has come of it.
            let _ = outbound.blocking_send(WorkerMessage { message: Some(message) });
        }
    }

    fn fetched(&self, query: u64, output: OutputId) {
        let output = Some(control::Output::of(query, output));
        let message = worker_message::Message::Fetched(control::Fetched { output });
        let outbound = self.outbound.lock().clone();
        if let Some(outbound) = outbound {
            // A scheduler that does not hear of it drops the output later.
            let _ = outbound.blocking_send(WorkerMessage { message: Some(message) });
        }
    }
}

impl Reports {
    /// Fails a task that cannot even begin. Called where no thread may wait.
    fn fail(&self, query: u64, output: OutputId, problem: &str) {
        let error = dovetail_engine::EngineError::internal(problem);
        let message = WorkerMessage { message: Some(failed(query, output, &error)) };
        if let Some(outbound) = self.outbound.lock().as_ref() {
            // A queue that is full: the query is ended by its lease.
            let _ = outbound.try_send(message);
        }
    }
}

fn failed(query: u64, output: OutputId, error: &dovetail_engine::EngineError) -> worker_message::Message {
    worker_message::Message::Failed(control::TaskFailed {
        output: Some(control::Output::of(query, output)),
        failure: serde_json::to_string(&failure_of(error)).expect("invariant: failures serialise"),
        message: error.to_string(),
    })
}

type Client = ControlClient<InterceptedService<Channel, ClientAuth>>;

/// Joins and stays.
///
/// # Errors
/// The scheduler refuses the worker, now and whenever it comes.
pub async fn join(
    surroundings: &Arc<Surroundings>,
    host: &Arc<Host>,
    reports: &Reports,
    stop: &mut watch::Receiver<bool>,
) -> Result<Left> {
    let channel = match surroundings.connector.connect(&surroundings.options.scheduler).await {
        Ok(channel) => channel,
        // Nobody is there, for now.
        Err(error @ ServerError::Connect { .. }) => return Ok(never_there(error.to_string())),
        Err(error) => return Err(error),
    };
    let client = ControlClient::with_interceptor(channel, surroundings.connector.auth())
        .max_decoding_message_size(CONTROL_BYTES_MAX)
        .max_encoding_message_size(CONTROL_BYTES_MAX);
    let (outbound, messages) = mpsc::channel(MESSAGES_MAX);
    let hello = control::Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
        slots: surroundings.options.threads as u32,
        memory_limit_bytes: surroundings.memory.limit_bytes() as u64,
        address: surroundings.address.clone(),
        name: surroundings.address.clone(),
        lineage: reports.lineage.lock().clone(),
    };
    let say = |message| WorkerMessage { message: Some(message) };
    outbound.try_send(say(worker_message::Message::Hello(hello))).expect("invariant: the queue is empty");
    // From now on ends are told, or belong to what is counted next.
    *reports.outbound.lock() = Some(outbound.clone());
    let left = match tell_held(host, outbound.clone()) {
        Ok(()) => stay(surroundings, host, reports, stop, client, outbound, messages).await,
        Err(error) => Ok(never_there(error.to_string())),
    };
    reports.outbound.lock().take();
    left
}

fn never_there(problem: String) -> Left {
    Left::Lost { problem, was_there: false }
}

async fn stay(
    surroundings: &Arc<Surroundings>,
    host: &Arc<Host>,
    reports: &Reports,
    stop: &mut watch::Receiver<bool>,
    mut client: Client,
    outbound: mpsc::Sender<WorkerMessage>,
    messages: mpsc::Receiver<WorkerMessage>,
) -> Result<Left> {
    let say = |message| WorkerMessage { message: Some(message) };
    let mut inbound = match client.join(ReceiverStream::new(messages)).await {
        Ok(response) => response.into_inner(),
        Err(status) if status.code() == tonic::Code::Unauthenticated => {
            return Err(ServerError::Connect {
                url: surroundings.options.scheduler.clone(),
                problem: status.message().into(),
            });
        }
        Err(status) => match connect_error(&surroundings.options.scheduler, &status) {
            ServerError::Connect { .. } => return Ok(never_there(status.message().to_string())),
            error => return Err(error),
        },
    };
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    let mut stay = Stay { surroundings, host, reports, broken: HashMap::new() };
    let mut is_leaving = false;
    let lost = |problem: String| Left::Lost { problem, was_there: true };
    let far = Duration::from_secs(u32::MAX.into());
    let leave_by = tokio::time::sleep(far);
    tokio::pin!(leave_by);
    let left = loop {
        tokio::select! {
            message = inbound.message() => match message {
                Ok(Some(message)) => match stay.take(message.message)? {
                    Next::Stay => {}
                    Next::BeatEach(every) => beat = tokio::time::interval(every),
                    Next::Go => break Left::Dismissed,
                    Next::Cut(problem) => break lost(problem),
                },
                Ok(None) => break lost("the scheduler has ended the connection".into()),
                Err(status) => break lost(status.message().to_string()),
            },
            _ = beat.tick() => {
                let heartbeat = control::Heartbeat {
                    memory_used_bytes: surroundings.memory.used_bytes() as u64,
                    spilled_bytes: surroundings.memory.spilled_bytes(),
                    spill_room_bytes: surroundings.spill.room_bytes(),
                };
                // A full queue: the scheduler hears the messages that fill it.
                let _ = outbound.try_send(say(worker_message::Message::Heartbeat(heartbeat)));
            }
            _ = stop.changed(), if !is_leaving => {
                is_leaving = true;
                leave_by.as_mut().reset(tokio::time::Instant::now() + LEAVE_MAX);
                tracing::info!("leaving");
                if outbound.send(say(worker_message::Message::Leaving(control::Leaving {}))).await.is_err() {
                    break Left::Dismissed;
                }
            }
            () = &mut leave_by, if is_leaving => break Left::Dismissed,
        }
    };
    Ok(left)
}

/// What follows from a message.
enum Next {
    Stay,
    BeatEach(Duration),
    Go,
    /// The scheduler does not speak our language.
    Cut(String),
}

struct Stay<'a> {
    surroundings: &'a Arc<Surroundings>,
    host: &'a Arc<Host>,
    reports: &'a Reports,
    /// Queries whose plans were not understood, and why: their tasks fail, other queries do not notice.
    broken: HashMap<u64, String>,
}

impl Stay<'_> {
    fn take(&mut self, message: Option<Message>) -> Result<Next> {
        let Some(message) = message else { return Ok(Next::Stay) };
        let done = match message {
            Message::Welcome(welcome) => {
                tracing::info!(worker = welcome.worker, "joined");
                let before = std::mem::replace(&mut *self.reports.lineage.lock(), welcome.lineage.clone());
                if before != welcome.lineage {
                    self.host.end_all();
                }
                let lease = Duration::from_millis(welcome.lease_ms.max(1000).into());
                return Ok(Next::BeatEach(lease / BEATS_PER_LEASE));
            }
            Message::Refused(refused) => {
                let url = self.surroundings.options.scheduler.clone();
                return Err(ServerError::Connect { url, problem: refused.reason });
            }
            Message::Dismiss(_) => return Ok(Next::Go),
            Message::Begin(begin) => {
                let query = begin.query;
                if let Err(problem) = self.begin(begin) {
                    self.broken.insert(query, problem);
                }
                Ok(())
            }
            Message::Split(split) => self.with_run(split.query, |run| {
                let stages = messages::decode_plan(&split.stages)?;
                run.change(stages).map_err(|e| e.to_string())
            }),
            Message::Placed(placed) => messages::placement(placed).and_then(|(query, placement)| {
                self.with_run(query, |run| run.place(placement).map_err(|e| e.to_string()))
            }),
            Message::Run(run) => {
                self.with_output(run.output, |query, output| match self.broken.get(&query) {
                    Some(problem) => self.reports.fail(query, output, problem),
                    None => self.host.start(query, output),
                })
            }
            Message::Warm(warm) => {
                self.host.warm(warm.query, dovetail_planner::graph::StageId(warm.stage));
                Ok(())
            }
            Message::Cancel(cancel) => self.with_output(cancel.output, |query, output| {
                if let Some(run) = self.host.run_of(query) {
                    run.cancel_attempt(output);
                }
            }),
            Message::Discard(discard) => self.with_output(discard.output, |query, output| {
                if let Some(run) = self.host.run_of(query) {
                    run.discard(output);
                }
            }),
            Message::Release(release) => self.with_run(release.query, |run| {
                run.release(dovetail_planner::graph::StageId(release.stage));
                Ok(())
            }),
            Message::Stop(stop) => self.with_run(stop.query, |run| {
                run.stop_attempts();
                Ok(())
            }),
            Message::End(end) => {
                self.host.end(end.query);
                self.broken.remove(&end.query);
                Ok(())
            }
        };
        Ok(done.map_or_else(Next::Cut, |()| Next::Stay))
    }

    fn begin(&self, begin: control::Begin) -> std::result::Result<(), String> {
        let graph = messages::decode_plan(&begin.graph)?;
        let Surroundings { memory, spill, fetcher, options, .. } = &**self.surroundings;
        let memory = begin.memory.map_or_else(|| memory.clone(), |part| part.child_of(memory));
        let context = QueryContext::bounded(begin.operators as usize, memory, spill.query());
        let tables = RemoteTables {
            fetcher: fetcher.clone(),
            scheduler: options.scheduler.clone(),
            tables: Mutex::default(),
        };
        let surroundings = QuerySurroundings {
            query: begin.query,
            catalog: self.surroundings.catalog.clone(),
            memory_tables: Arc::new(tables),
            context: Arc::new(context),
            fetcher: fetcher.clone(),
        };
        let readable = Readable::of(&graph, begin.capability);
        self.host.begin(begin.query, PlacedRun::new(graph, surroundings));
        readable.into_iter().for_each(|readable| self.host.let_read(begin.query, readable));
        Ok(())
    }

    /// A query that has ended here is ended there as well, or will be: its messages are of no use.
    fn with_run(
        &self,
        query: u64,
        act: impl FnOnce(&PlacedRun) -> std::result::Result<(), String>,
    ) -> std::result::Result<(), String> {
        self.host.run_of(query).map_or(Ok(()), |run| act(&run))
    }

    fn with_output(
        &self,
        output: Option<control::Output>,
        act: impl FnOnce(u64, OutputId),
    ) -> std::result::Result<(), String> {
        let output = output.ok_or("a message about nothing")?;
        act(output.query, output.id());
        Ok(())
    }
}
