//! A state directory through the starts of several servers.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use dovetail_engine::session::cluster::DurableResult;
use dovetail_engine::{Session, SessionOptions};
use dovetail_planner::catalog::TableData;
use dovetail_planner::graph::{Place, Stage, StageId, TaskGraph};
use dovetail_planner::physical::{Scan, Values};
use dovetail_planner::pipeline::{Branch, NO_OPERATOR, QueryGraph, Sink, Source, StageWork};

use super::*;
use crate::records::{Anew, Finished, Split, Told};

fn graph(source: Source) -> QueryGraph {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let branch = Branch {
        tasks: 1,
        source,
        source_schema: schema.clone(),
        source_operator: NO_OPERATOR,
        steps: vec![],
    };
    let work = StageWork {
        branches: vec![branch],
        sink: Sink::Collect,
        sink_schema: schema,
        sink_operator: NO_OPERATOR,
    };
    let stage =
        Stage { id: StageId(0), tasks: 1, inputs: vec![], place: Place::Home, replayable: true, work };
    TaskGraph { stages: vec![stage], results: vec![StageId(0)] }
}

fn query(source: Source) -> ClusterQuery {
    let session = Session::new(SessionOptions::default()).unwrap();
    let graph = graph(source);
    let schema = graph.stages[0].work.sink_schema.clone();
    let (sql, user) = ("SELECT 1".into(), "anna".to_owned());
    let durable = DurableResult { handle: b"the handle".to_vec(), schema, sql, user };
    session.resume(graph, StageId(0), 3, durable).unwrap().0
}

fn values() -> Source {
    Source::Values(Values { rows: vec![] })
}

fn finished(partition: u32) -> record::Record {
    record::Record::Finished(Finished { stage: 0, partition, attempt: 2, is_partitioned: false })
}

#[test]
fn a_query_is_found_again_with_what_was_recorded_of_it() {
    let place = tempfile::tempdir().unwrap();
    let first = StateDirectory::open(place.path()).unwrap();
    let query = query(values());
    let id = first.identity().first_query();
    let log = Journal::new(&first).begin(id, &query).unwrap();
    log.add(record::Record::Told(Told { worker: "w".into() }));
    log.add(finished(0));
    let lineage = first.identity().lineage;
    drop(first);
    let second = StateDirectory::open(place.path()).unwrap();
    assert_eq!(second.identity().lineage, lineage);
    assert_eq!(second.identity().starts_since(id), 1);
    assert!(second.identity().first_query() > id);
    let mut found = second.unfinished();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].handle, "the handle");
    let (unfinished, log) = found.pop().unwrap().query.unwrap();
    assert_eq!((unfinished.id, unfinished.operators, unfinished.result), (id, 3, StageId(0)));
    assert_eq!(unfinished.graph, query.graph);
    assert_eq!(unfinished.schema, query.durable.unwrap().schema);
    assert_eq!((&*unfinished.sql, &*unfinished.user), ("SELECT 1", "anna"));
    assert_eq!(unfinished.recorded().len(), 1);
    assert!(unfinished.told.contains("w"));
    log.remove();
    assert!(second.unfinished().is_empty());
}

#[test]
fn a_query_that_was_begun_anew_has_forgotten_what_came_before() {
    let place = tempfile::tempdir().unwrap();
    let first = StateDirectory::open(place.path()).unwrap();
    let id = first.identity().first_query();
    let log = Journal::new(&first).begin(id, &query(values())).unwrap();
    let stages = encode_plan(&graph(values()).stages);
    log.add(record::Record::Split(Split { build: 0, stages }));
    log.add(finished(0));
    log.add(record::Record::Anew(Anew { query: id + 1 }));
    drop(first);
    let second = StateDirectory::open(place.path()).unwrap();
    let (unfinished, _) = second.unfinished().pop().unwrap().query.unwrap();
    assert_eq!(unfinished.id, id + 1);
    assert!(unfinished.recorded.is_empty() && unfinished.decided.is_empty() && unfinished.changed.is_empty());
}

#[test]
fn what_makes_no_sense_is_an_error_for_the_one_who_asks() {
    let place = tempfile::tempdir().unwrap();
    let first = StateDirectory::open(place.path()).unwrap();
    let log = Journal::new(&first).begin(first.identity().first_query(), &query(values())).unwrap();
    log.add(finished(5));
    drop(first);
    let second = StateDirectory::open(place.path()).unwrap();
    let found = second.unfinished().pop().unwrap();
    let problem = found.query.err().unwrap();
    assert!(problem.contains("damaged") && problem.contains("run it again"), "{problem}");
    assert!(second.unfinished().is_empty(), "it is told once");
}

#[test]
fn a_query_that_ends_its_server_again_and_again_is_given_up() {
    let place = tempfile::tempdir().unwrap();
    let mut state = StateDirectory::open(place.path()).unwrap();
    Journal::new(&state).begin(state.identity().first_query(), &query(values())).unwrap();
    for _ in 0..unfinished::RECOVERIES_MAX {
        drop(state);
        state = StateDirectory::open(place.path()).unwrap();
        assert!(state.unfinished().pop().unwrap().query.is_ok());
    }
    drop(state);
    let state = StateDirectory::open(place.path()).unwrap();
    assert!(state.unfinished().pop().unwrap().query.is_err());
}

#[test]
fn two_servers_do_not_share_a_directory() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("state");
    let first = StateDirectory::open(&directory).unwrap();
    let mode = std::fs::metadata(&directory).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let error = StateDirectory::open(&directory).unwrap_err().to_string();
    assert!(error.contains("another server uses it") && error.contains("--state-dir"), "{error}");
    drop(first);
    StateDirectory::open(&directory).unwrap();
}

#[test]
fn a_directory_that_is_none_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = StateDirectory::open(file.path()).unwrap_err().to_string();
    assert!(error.contains("--state-dir"), "{error}");
}

#[test]
fn what_would_not_survive_is_not_logged() {
    let place = tempfile::tempdir().unwrap();
    let state = StateDirectory::open(place.path()).unwrap();
    let journal = Journal::new(&state);
    let scan = Scan {
        table: "t".into(),
        data: TableData::Memory { id: 1, version: 1 },
        table_schema: Arc::new(Schema::empty()),
        columns: vec![],
        filters: vec![],
        output: vec![],
        runtime_filters: vec![],
        limit: None,
    };
    assert!(journal.begin(1, &query(Source::Scan(scan))).is_none());
    assert!(journal.begin(2, &ClusterQuery { durable: None, ..query(values()) }).is_none());
    assert!(journal.begin(3, &query(values())).is_some());
    journal.end(b"the handle");
    assert_eq!(logs(&state.queries).unwrap(), []);
}
