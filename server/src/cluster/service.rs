//! The stream of each worker, between the network and the driver.

use std::pin::Pin;

use futures::Stream;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::ClusterHandle;
use super::driver::Input;
use super::messages::{CONTROL_BYTES_MAX, PROTOCOL};
use super::workers::MESSAGES_MAX;
use crate::control::control_server::Control;
use crate::control::scheduler_message::Message;
use crate::control::{Held, Hello, Refused, SchedulerMessage, WorkerMessage, worker_message};

/// The most slots that a worker may say it has.
const SLOTS_MAX: u32 = 4096;

/// What a worker may say that it has kept, and the ends of tasks that it may report meanwhile.
const HELD_BYTES_MAX: usize = 4 * CONTROL_BYTES_MAX;
const EARLY_ENDS_MAX: usize = 1 << 16;

/// Lets workers join.
pub struct ControlService {
    cluster: ClusterHandle,
}

impl ControlService {
    pub(super) fn new(cluster: ClusterHandle) -> Self {
        ControlService { cluster }
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<SchedulerMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Control for ControlService {
    type JoinStream = Messages;

    async fn join(&self, request: Request<Streaming<WorkerMessage>>) -> Result<Response<Messages>, Status> {
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.and_then(|m| m.message);
        let Some(worker_message::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("a worker says hello first"));
        };
        if let Err(reason) = check(&hello) {
            tracing::warn!(name = hello.name, reason, "a worker is refused");
            let refused = SchedulerMessage { message: Some(Message::Refused(Refused { reason })) };
            return Ok(Response::new(Box::pin(futures::stream::iter([Ok(refused)]))));
        }
        let Kept { held, early } = kept(&mut inbound).await?;
        let (outbound, messages) = mpsc::channel(MESSAGES_MAX);
        let (welcome, welcomed) = oneshot::channel();
        let driver = self.cluster.driver.clone();
        let gone = || Status::unavailable("the server is shutting down");
        let joined = Input::WorkerJoined { hello: Box::new(hello), held, outbound, welcome };
        driver.send(joined).map_err(|_| gone())?;
        let worker = welcomed.await.map_err(|_| gone())?;
        for message in early {
            driver.send(Input::WorkerSaid { worker, message: Box::new(message) }).map_err(|_| gone())?;
        }
        tokio::spawn(async move {
            // A broken stream is its end.
            while let Ok(Some(said)) = inbound.message().await {
                let Some(message) = said.message else { continue };
                if driver.send(Input::WorkerSaid { worker, message: Box::new(message) }).is_err() {
                    return;
                }
            }
            let _ = driver.send(Input::WorkerGone { worker });
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

/// What a worker says before it counts as there.
#[derive(Default)]
struct Kept {
    held: Vec<Held>,
    /// What else it has said.
    early: Vec<worker_message::Message>,
}

async fn kept(inbound: &mut Streaming<WorkerMessage>) -> Result<Kept, Status> {
    let (mut kept, mut bytes) = (Kept::default(), 0);
    while bytes <= HELD_BYTES_MAX && kept.early.len() <= EARLY_ENDS_MAX {
        let said = inbound.message().await?.ok_or_else(|| Status::cancelled("the worker has gone"))?;
        match said.message {
            Some(worker_message::Message::HeldAll(_)) => return Ok(kept),
            Some(worker_message::Message::Held(held)) => {
                bytes += held.encoded_len();
                kept.held.push(held);
            }
            Some(other) => kept.early.push(other),
            None => {}
        }
    }
    Err(Status::resource_exhausted("the worker has kept more than a scheduler takes in"))
}

/// Whether the two sides understand each other.
fn check(hello: &Hello) -> Result<(), String> {
    let ours = env!("CARGO_PKG_VERSION");
    if hello.protocol != PROTOCOL || hello.version != ours {
        return Err(format!(
            "the worker is of version {} (protocol {}), the scheduler of {ours} (protocol {PROTOCOL}); run the \
             same version of dovetail on all machines",
            hello.version, hello.protocol
        ));
    }
    match hello.slots {
        1..=SLOTS_MAX => Ok(()),
        n => Err(format!("a worker cannot run {n} tasks at a time")),
    }
}
