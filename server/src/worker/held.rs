//! What a worker has, told to the scheduler that it joins.

use dovetail_engine::Result;
use dovetail_engine::query::placed::{Inventory, Report};
use dovetail_engine::scheduler::events::OutputId;
use prost::Message;
use tokio::sync::mpsc;

use crate::control::{self, WorkerMessage, worker_message};
use crate::host::Host;

/// A message is sent when it has become so large, well below what a message may have.
const HELD_BYTES: usize = 8 << 20;

/// Counts what is there, and sends it as the stream takes it.
///
/// # Errors
/// What is there cannot be described: a defect.
pub fn tell_held(host: &Host, outbound: mpsc::Sender<WorkerMessage>) -> Result<()> {
    let mut messages = vec![];
    for (query, inventory) in host.inventory()? {
        tell_query(query, inventory, &mut messages);
    }
    tokio::spawn(async move {
        let held = messages.into_iter().map(worker_message::Message::Held);
        let all = worker_message::Message::HeldAll(control::HeldAll {});
        for message in held.chain([all]) {
            // If the stream is gone, nobody wants to know.
            if outbound.send(WorkerMessage { message: Some(message) }).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn tell_query(query: u64, inventory: Inventory, messages: &mut Vec<control::Held>) {
    let Inventory { stages, running, outputs } = inventory;
    let held = |outputs, running: &[OutputId]| control::Held {
        query,
        stages: stages as u32,
        outputs,
        running: running.iter().map(|output| control::Output::of(query, *output)).collect(),
    };
    let (mut some, mut bytes) = (vec![], 0);
    for (output, report) in outputs {
        let one = held_output(query, output, &report);
        bytes += one.encoded_len();
        some.push(one);
        if bytes >= HELD_BYTES {
            messages.push(held(std::mem::take(&mut some), &[]));
            bytes = 0;
        }
    }
    // Also if there is nothing: the query itself is known here.
    messages.push(held(some, &running));
}

fn held_output(query: u64, output: OutputId, report: &Report) -> control::HeldOutput {
    control::HeldOutput { output: Some(control::Output::of(query, output)), report: Some(report.into()) }
}
