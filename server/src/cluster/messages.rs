//! The engine's plain data as messages of the protocol, and back. What comes from outside is checked here.

use std::sync::Arc;

use bytes::Bytes;
use dovetail_engine::LimitScope;
use dovetail_engine::memory::Governor;
use dovetail_engine::query::placed::{Placement, Report, Value};
use dovetail_engine::scheduler::events::{Attempt, OutputId};
use dovetail_planner::graph::{StageId, TaskId};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::control;

/// The version of the protocol and of the plans in it: raised with every change that the other side would not
/// understand.
pub const PROTOCOL: u32 = 4;

/// The largest message of a control stream: the plan of a table of very many files, or the filters of a join.
pub const CONTROL_BYTES_MAX: usize = 64 << 20;

/// The most partitions that a report may have.
const PARTITIONS_MAX: usize = 1 << 16;

impl control::Output {
    /// The message for an output of a query.
    pub fn of(query: u64, output: OutputId) -> Self {
        let OutputId { task, attempt } = output;
        control::Output { query, stage: task.stage.0, partition: task.partition, attempt: attempt.0 }
    }

    /// The output that is meant.
    pub fn id(&self) -> OutputId {
        let task = TaskId { stage: StageId(self.stage), partition: self.partition };
        OutputId { task, attempt: Attempt(self.attempt) }
    }
}

impl From<&Report> for control::Report {
    fn from(report: &Report) -> Self {
        let (mut parameter, mut filters) = (None, vec![]);
        match &report.value {
            Value::Nothing => {}
            Value::Parameter(id, value) => {
                let value = serde_json::to_vec(value).expect("invariant: literals serialise");
                parameter = Some(control::Parameter { id: *id, value: value.into() });
            }
            Value::Filters(all) => {
                let filter =
                    |(id, bits): &(u32, Vec<u8>)| control::Filter { id: *id, bits: bits.clone().into() };
                filters = all.iter().map(filter).collect();
            }
        }
        let (rows, bytes, is_partitioned) = (report.rows.clone(), report.bytes, report.is_partitioned);
        control::Report { rows, bytes, is_partitioned, parameter, filters }
    }
}

impl control::MemoryPart {
    /// The least of the limits that bound a query here, if it has another than all queries together.
    pub fn of(memory: &Governor) -> Option<control::MemoryPart> {
        let is_of_user = match memory.scope() {
            LimitScope::Process => return None,
            LimitScope::User => true,
            LimitScope::Session => false,
        };
        Some(control::MemoryPart { limit_bytes: memory.limit_bytes() as u64, is_of_user })
    }

    /// The same part of this process's memory.
    pub fn child_of(&self, memory: &Governor) -> Governor {
        let scope = if self.is_of_user { LimitScope::User } else { LimitScope::Session };
        memory.child(scope, self.limit_bytes)
    }
}

/// A graph, or stages of one, as bytes. However deep its expressions are.
pub fn encode_plan<T: Serialize>(plan: &T) -> Bytes {
    let mut json = vec![];
    let mut serializer = serde_json::Serializer::new(&mut json);
    let serializer = serde_stacker::Serializer::new(&mut serializer);
    plan.serialize(serializer).expect("invariant: plans serialise");
    json.into()
}

/// The graph, or the stages, of some bytes.
pub fn decode_plan<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    deserializer.disable_recursion_limit();
    let deserializer = serde_stacker::Deserializer::new(&mut deserializer);
    T::deserialize(deserializer).map_err(|e| format!("a plan that is none: {e}"))
}

/// A report that came from another process.
pub fn report(message: control::Report) -> Result<Report, String> {
    if message.rows.len() > PARTITIONS_MAX {
        return Err(format!("a report of {} partitions", message.rows.len()));
    }
    let value = match (message.parameter, message.filters) {
        (Some(p), _) => {
            let value = serde_json::from_slice(&p.value).map_err(|e| format!("a value that is none: {e}"))?;
            Value::Parameter(p.id, value)
        }
        (None, filters) if filters.is_empty() => Value::Nothing,
        (None, filters) => Value::Filters(filters.into_iter().map(|f| (f.id, f.bits.to_vec())).collect()),
    };
    let (rows, bytes, is_partitioned) = (message.rows, message.bytes, message.is_partitioned);
    Ok(Report { rows, bytes, is_partitioned, value })
}

/// A placement that came from the scheduler. An empty address is this process.
pub fn placement(message: control::Placed) -> Result<(u64, Placement), String> {
    let output = message.output.ok_or("a placement of nothing")?;
    let place = (!message.address.is_empty()).then_some(message.address);
    let report = Arc::new(report(message.report.ok_or("a placement without a report")?)?);
    Ok((output.query, Placement { output: output.id(), place, report }))
}

#[cfg(test)]
mod tests {
    use datafusion_common::ScalarValue;
    use dovetail_planner::expr::Literal;

    use super::*;

    #[test]
    fn a_part_of_the_memory_survives() {
        let process = Governor::unlimited();
        assert_eq!(control::MemoryPart::of(&process), None);
        for scope in [LimitScope::User, LimitScope::Session] {
            let part = control::MemoryPart::of(&process.child(scope, 1000)).unwrap();
            let there = part.child_of(&Governor::unlimited());
            assert_eq!((there.scope(), there.limit_bytes()), (scope, 1000));
        }
    }

    #[test]
    fn reports_survive() {
        for value in [
            Value::Nothing,
            Value::Parameter(3, Literal(ScalarValue::Decimal128(Some(7), 12, 2))),
            Value::Filters(vec![(1, vec![0]), (2, vec![1])]),
        ] {
            let sent = Report { rows: vec![1, 0, 5], bytes: 77, is_partitioned: true, value };
            assert_eq!(report((&sent).into()).unwrap(), sent);
        }
        let bad = control::Parameter { id: 1, value: b"[1,2]".to_vec().into() };
        assert!(report(control::Report { parameter: Some(bad), ..control::Report::default() }).is_err());
    }
}
