//! What a query reads, from its plan and from what it has counted in the end.

use std::collections::HashMap;
use std::sync::Arc;

use dovetail_planner::catalog::{FileRef, TableData};
use dovetail_planner::explain;
use dovetail_planner::physical::{Operator, PhysicalPlan, Query, Scan};
use dovetail_planner::pipeline::{QueryGraph, Source};
use twox_hash::XxHash3_64;

use super::{AuditRecord, Entry, INPUTS_MAX, Input, Worker};
use crate::task::QueryContext;
use crate::task::touched::FileUse;

/// A query of a statement that is audited. Dropped when the query has ended, it adds what was read.
pub struct Reading {
    entry: Arc<Entry>,
    scans: Vec<Scanned>,
    context: Arc<QueryContext>,
}

/// A scan of the plan.
struct Scanned {
    operator: u32,
    table: String,
    data: TableData,
}

impl Reading {
    /// The query of a plan is about to run in a context.
    pub fn of(entry: Arc<Entry>, query: &Query, context: Arc<QueryContext>) -> Reading {
        let mut scans = vec![];
        let others = query.subqueries.iter().chain(&query.shared).map(|(_, plan)| plan);
        std::iter::once(&query.root).chain(others).for_each(|plan| find_scans(plan, &mut scans));
        entry.planned(|| format!("{:016x}", XxHash3_64::oneshot(explain::shape(query).as_bytes())));
        Reading { entry, scans, context }
    }

    /// The query of a graph, whose plan is not known any more.
    pub fn of_graph(entry: Arc<Entry>, graph: &QueryGraph, context: Arc<QueryContext>) -> Reading {
        let branches = graph.stages.iter().flat_map(|stage| &stage.work.branches);
        let scans = branches.filter_map(|branch| match &branch.source {
            Source::Scan(scan) => Some(Scanned::new(branch.source_operator, scan)),
            _ => None,
        });
        Reading { entry, scans: scans.collect(), context }
    }
}

impl Scanned {
    fn new(operator: u32, scan: &Scan) -> Scanned {
        Scanned { operator, table: scan.table.clone(), data: scan.data.clone() }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.entry.add(|record| self.add_to(record));
    }
}

impl Reading {
    fn add_to(&self, record: &mut AuditRecord) {
        let metrics = &self.context.metrics;
        record.bytes_read += metrics.total(|m| &m.bytes_read);
        record.bytes_spilled += metrics.total(|m| &m.bytes_spilled);
        let mut touched = metrics.touched();
        for (name, worker) in touched.workers {
            match record.workers.iter_mut().find(|w| *w.name == *name) {
                Some(known) => known.tasks += worker.tasks,
                None => record.workers.push(Worker {
                    name: name.to_string(),
                    version: worker.version,
                    tasks: worker.tasks,
                }),
            }
        }
        // A table may be scanned more than once.
        let mut known: HashMap<(String, Option<String>), usize> =
            record.inputs.iter().enumerate().map(|(i, input)| (version_of(input), i)).collect();
        for scan in &self.scans {
            for (number, input) in inputs(scan).enumerate() {
                let used = touched.files.remove(&(scan.operator, number as u32)).unwrap_or_default();
                record.rows_read += used.rows;
                let place = *known.entry(version_of(&input)).or_insert_with(|| {
                    record.inputs.push(input);
                    record.inputs.len() - 1
                });
                add_use(&mut record.inputs[place], used);
            }
        }
        record.inputs_total = record.inputs_total.max(record.inputs.len() as u64);
        if record.inputs.len() > INPUTS_MAX {
            record.inputs.sort_by_key(|input| std::cmp::Reverse(input.bytes_read));
            record.inputs.truncate(INPUTS_MAX);
        }
    }
}

fn find_scans(plan: &PhysicalPlan, scans: &mut Vec<Scanned>) {
    if let Operator::Scan(scan) = &plan.operator {
        scans.push(Scanned::new(plan.id, scan));
    }
    plan.inputs.iter().for_each(|input| find_scans(input, scans));
}

/// The inputs of a scan, in the order of its files.
fn inputs(scan: &Scanned) -> Box<dyn Iterator<Item = Input> + '_> {
    let nothing = |url: String| Input {
        table_name: super::mask(&scan.table),
        url,
        etag: None,
        size_bytes: None,
        rows_total: None,
        rows_read: 0,
        bytes_read: 0,
        workers: vec![],
    };
    let file = move |file: &FileRef| Input {
        etag: file.etag.clone(),
        size_bytes: Some(file.size_bytes),
        rows_total: Some(file.rows),
        ..nothing(file.url.clone())
    };
    match &scan.data {
        TableData::Parquet(files) => Box::new(files.iter().map(file)),
        TableData::Memory { id, version } => Box::new(std::iter::once(Input {
            etag: Some(format!("{id}.{version}")),
            ..nothing(format!("memory:{}", scan.table))
        })),
    }
}

fn version_of(input: &Input) -> (String, Option<String>) {
    (input.url.clone(), input.etag.clone())
}

fn add_use(input: &mut Input, used: FileUse) {
    input.rows_read += used.rows;
    input.bytes_read += used.bytes;
    for worker in used.workers {
        if !input.workers.iter().any(|known| **known == *worker) {
            input.workers.push(worker.to_string());
        }
    }
}
