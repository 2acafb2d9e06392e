//! `system`: what runs at the moment, where, and with which settings.

use std::sync::atomic::Ordering;

use super::super::Session;
use super::rows::{Column, SystemTable, Value};
use crate::error::Result;
use crate::session::cluster::{TaskState, WorkerState};

const QUERIES: &[Column] = &[
    ("query_id", "BIGINT"),
    ("user_name", "VARCHAR"),
    ("sql", "VARCHAR"),
    ("started", "TIMESTAMP"),
    ("elapsed_ms", "BIGINT"),
    ("tasks", "BIGINT"),
    ("tasks_done", "BIGINT"),
    ("bytes_read", "BIGINT"),
    ("bytes_spilled", "BIGINT"),
];

const SETTINGS: &[Column] = &[("name", "VARCHAR"), ("value", "VARCHAR")];

const TASKS: &[Column] = &[
    ("worker_id", "BIGINT"),
    ("cluster_query", "BIGINT"),
    ("stage", "BIGINT"),
    ("task", "BIGINT"),
    ("attempt", "BIGINT"),
    ("elapsed_ms", "BIGINT"),
];

const WORKERS: &[Column] = &[
    ("worker_id", "BIGINT"),
    ("address", "VARCHAR"),
    ("slots", "BIGINT"),
    ("running", "BIGINT"),
    ("is_leaving", "BOOLEAN"),
    ("memory_limit_bytes", "BIGINT"),
    ("memory_used_bytes", "BIGINT"),
    ("spilled_bytes", "BIGINT"),
];

pub fn queries(session: &Session) -> Result<SystemTable> {
    let mut table = SystemTable::new(QUERIES);
    let is_seen = |user: &str| session.sees_only.as_deref().is_none_or(|only| only == user);
    for query in session.running.all().into_iter().filter(|query| is_seen(&query.user)) {
        let metrics = &query.context.metrics;
        table.push(&[
            Value::Number(query.id),
            Value::Text(&query.user),
            Value::Text(&query.sql),
            Value::Timestamp(query.started_micros),
            Value::Number(query.since.elapsed().as_millis() as u64),
            Value::Number(query.context.tasks.load(Ordering::Relaxed)),
            Value::Number(query.context.tasks_done.load(Ordering::Relaxed)),
            Value::Number(metrics.total(|m| &m.bytes_read)),
            Value::Number(metrics.total(|m| &m.bytes_spilled)),
        ]);
    }
    Ok(table)
}

pub fn settings(session: &Session) -> Result<SystemTable> {
    let mut table = SystemTable::new(SETTINGS);
    for (name, value) in session.settings() {
        table.push(&[Value::Text(name), Value::Text(&value)]);
    }
    Ok(table)
}

pub fn tasks(session: &Session) -> Result<SystemTable> {
    let mut table = SystemTable::new(TASKS);
    for task in cluster_state(session).1 {
        let TaskState { worker, query, stage, task, attempt, elapsed_ms } = task;
        let numbers = [worker.into(), query, stage.into(), task.into(), attempt.into(), elapsed_ms];
        table.push(&numbers.map(Value::Number));
    }
    Ok(table)
}

pub fn workers(session: &Session) -> Result<SystemTable> {
    let mut table = SystemTable::new(WORKERS);
    for worker in cluster_state(session).0 {
        table.push(&[
            Value::Number(worker.id.into()),
            Value::Text(&worker.address),
            Value::Number(worker.slots.into()),
            Value::Number(worker.running.into()),
            Value::Flag(worker.is_leaving),
            Value::Number(worker.memory_limit_bytes),
            Value::Number(worker.memory_used_bytes),
            Value::Number(worker.spilled_bytes),
        ]);
    }
    Ok(table)
}

fn cluster_state(session: &Session) -> (Vec<WorkerState>, Vec<TaskState>) {
    session.cluster.get().map(|cluster| cluster.state()).unwrap_or_default()
}
