//! Rows of large results flow from the workers to their reader: complete and in order, through little memory, past
//! workers that die, and without holding up anybody when the reader does not read.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use dovetail_engine::memory::MemoryLimit;
use dovetail_engine::{EngineError, ResultStream, Session, SessionOptions};
use dovetail_server::Connector;
use dovetail_server::cluster::Recovery;
use dovetail_server::security::Security;
use dovetail_sqllogictests::cluster::Cluster;
use futures::TryStreamExt;
use sqllogictest::harness::{Failed, Trial};

use super::data;
use super::losses::signal_to;
use super::server::Processes;
use super::spilling::{SPILLS, files, must_be_gone};

const WORKERS: usize = 3;

/// Larger than any number of a row of [`LARGE`] within its part.
const PART: i64 = 10_000_000;

/// Some 70 MB in the order of three parts, from 18 tasks.
pub const LARGE: &str = "\
    SELECT 10000000 + l_orderkey * 8 + l_linenumber AS k, l_comment FROM lineitem UNION ALL \
    SELECT 20000000 + l_orderkey * 8 + l_linenumber, l_comment FROM lineitem UNION ALL \
    SELECT 30000000 + l_orderkey * 8 + l_linenumber, l_comment FROM lineitem";

/// Of the process that reads: a few outputs of [`LARGE`], and less than the half of it.
const MEMORY_BYTES: u64 = 32 << 20;

/// Results of two outputs each are too large for it to wait for the second.
const LITTLE_MEMORY_BYTES: u64 = 1 << 20;

/// More than the queries that run at a time.
const SLOW_READERS: usize = 66;

/// Results that are on their way.
const AT_HOME: &str = "SELECT count(*) AS n FROM system.tasks WHERE worker_id = 0";

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("a large result flows through little memory", flows),
        Trial::test("a sorted result and a limited one flow", in_order),
        Trial::test("a worker is killed while rows flow", killed),
        Trial::test("rows that cannot be made again are lost while they flow", not_replayable),
        Trial::test("readers that do not read hold up nobody", slow_readers),
        Trial::test("a reader goes while rows flow", gone),
        Trial::test("a query is cancelled while nobody reads", cancelled),
        Trial::test("the scheduler is killed while a client fetches", fetched_again),
    ]
}

fn world(memory_bytes: u64, recovery: Recovery, words: &[&str]) -> Result<(Cluster, Arc<Session>), String> {
    let memory_limit = Some(MemoryLimit::Bytes(memory_bytes));
    let options = SessionOptions { threads: 2, memory_limit, ..SessionOptions::default() };
    let session = Session::open(&data::folder().to_string_lossy(), options).map_err(|e| e.to_string())?;
    let session = Arc::new(session);
    let cluster = Cluster::with_recovery(&session, WORKERS, words, recovery).map_err(|e| format!("{e:#}"))?;
    Ok((cluster, session))
}

/// A stream, and its first rows.
fn begin(session: &Session, sql: &str) -> Result<(RecordBatch, ResultStream), String> {
    let mut stream = session.stream(sql).map_err(|e| format!("{sql}: {e}"))?;
    let first = stream.next().ok_or("there are no rows")?.map_err(|e| e.to_string())?;
    Ok((first, stream))
}

/// Rows of [`LARGE`] whatever their order, by their number and the sum of their hashes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub rows: usize,
    hashes: u64,
}

impl Rows {
    pub fn add(&mut self, batch: &RecordBatch) {
        let keys = batch.column(0).as_primitive::<Int64Type>();
        for row in keys.values().iter().zip(batch.column(1).as_string_view()) {
            let mut hasher = DefaultHasher::new();
            row.hash(&mut hasher);
            self.hashes = self.hashes.wrapping_add(hasher.finish());
        }
        self.rows += batch.num_rows();
    }

    /// [`Self::add`] of rows as clients get them.
    pub fn add_plain(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let views = cast(batch.column(1), &DataType::Utf8View)?;
        self.add(&RecordBatch::try_from_iter([("k", batch.column(0).clone()), ("c", views)])?);
        Ok(())
    }

    /// What a single process answers.
    pub fn expected() -> Result<Rows, String> {
        let mut rows = Rows::default();
        let session = data::session();
        for batch in session.stream(LARGE).map_err(|e| e.to_string())? {
            rows.add(&batch.map_err(|e| e.to_string())?);
        }
        Ok(rows)
    }
}

/// The parts of the rows, which come one after the other.
fn parts(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().iter().map(|k| k / PART).collect()
}

/// The one number that a query gives.
fn number(session: &Session, sql: &str) -> Result<i64, String> {
    let result = session.execute(sql).map_err(|e| format!("{sql}: {e}"))?;
    Ok(result.batches[0].column(0).as_primitive::<Int64Type>().value(0))
}

fn flows() -> Result<(), Failed> {
    let (_cluster, session) = world(MEMORY_BYTES, Recovery::On, &[])?;
    let (first, stream) = begin(&session, LARGE)?;
    // Others are answered meanwhile, and see that this result is on its way.
    if number(&session, AT_HOME)? != 1 {
        return Err("everything was fetched before the first row was there".into());
    }
    let (mut rows, mut bytes, mut parts_seen) = (Rows::default(), 0, vec![]);
    for batch in std::iter::once(Ok(first)).chain(stream) {
        let batch = batch.map_err(|e| e.to_string())?;
        bytes += batch.get_array_memory_size();
        rows.add(&batch);
        parts_seen.extend(parts(&batch));
        parts_seen.dedup();
    }
    assert_eq!(parts_seen, [1, 2, 3]);
    assert_eq!(rows, Rows::expected()?);
    let memory = session.memory();
    if memory.spilled_bytes > 0 || memory.peak_bytes > MEMORY_BYTES || bytes < 2 * MEMORY_BYTES as usize {
        return Err(format!("{bytes} bytes have passed through {memory:?}").into());
    }
    assert_eq!(memory.used_bytes, 0);
    Ok(())
}

fn in_order() -> Result<(), Failed> {
    let (_cluster, session) = world(LITTLE_MEMORY_BYTES, Recovery::On, &[])?;
    let sql = "SELECT l_orderkey * 8 + l_linenumber AS k FROM lineitem ORDER BY k DESC";
    let keys = |session: &Session, sql| -> Result<Vec<i64>, String> {
        let result = session.execute(sql).map_err(|e| e.to_string())?;
        let values = |b: &RecordBatch| b.column(0).as_primitive::<Int64Type>().values().to_vec();
        Ok(result.batches.iter().flat_map(values).collect())
    };
    let sorted = keys(&session, sql)?;
    assert!(sorted.len() > 600_000 && sorted.is_sorted_by(|a, b| a > b));
    assert!(sorted == keys(&data::session(), sql)?);
    assert_eq!(keys(&session, "SELECT l_orderkey FROM lineitem LIMIT 345678")?.len(), 345_678);
    assert_eq!(session.memory().used_bytes, 0);
    Ok(())
}

/// A worker dies when the first rows have gone on, and is missed before the next.
fn struck(sql: &str, recovery: Recovery) -> Result<Result<Rows, EngineError>, String> {
    let (mut cluster, session) = world(MEMORY_BYTES, recovery, &[])?;
    let (first, mut stream) = begin(&session, sql)?;
    let mut rows = Rows::default();
    rows.add(&first);
    signal_to(cluster.worker(1).id(), "-KILL");
    cluster.wait_for_slots(WORKERS as u32 - 1).map_err(|e| e.to_string())?;
    Ok(loop {
        match stream.next() {
            Some(Ok(batch)) => rows.add(&batch),
            Some(Err(error)) => break Err(error),
            None => break Ok(rows),
        }
    })
}

fn killed() -> Result<(), Failed> {
    if struck(LARGE, Recovery::Off)?.is_ok() {
        return Err("without recovery the run does not fail: the fault is none".into());
    }
    assert_eq!(struck(LARGE, Recovery::On)?.map_err(|e| e.to_string())?, Rows::expected()?);
    Ok(())
}

fn not_replayable() -> Result<(), Failed> {
    let sql = LARGE.replace("l_comment", "concat(l_comment, random()::varchar) AS c");
    match struck(&sql, Recovery::On)? {
        Err(error) if error.to_string().contains("run the query again") => Ok(()),
        other => Err(format!("rows of two runs were mixed, or the error does not help: {other:?}").into()),
    }
}

fn slow_readers() -> Result<(), Failed> {
    let (_cluster, session) = world(LITTLE_MEMORY_BYTES, Recovery::On, &[])?;
    let sql = "SELECT o_orderkey FROM orders";
    let slow = (0..SLOW_READERS).map(|_| begin(&session, sql)).collect::<Result<Vec<_>, _>>()?;
    let on_the_way = number(&session, AT_HOME)?;
    if on_the_way < SLOW_READERS as i64 {
        return Err(format!("only {on_the_way} of the results were not fetched").into());
    }
    for (first, stream) in slow {
        let rest = stream.map(|b| b.map(|b| b.num_rows())).sum::<Result<usize, _>>();
        assert_eq!(first.num_rows() + rest.map_err(|e| e.to_string())?, 150_000);
    }
    Ok(())
}

/// Workers that have all of a result on their disks, and its reader.
fn on_disk() -> Result<(tempfile::TempDir, Cluster, Arc<Session>, ResultStream), String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let words = [SPILLS, "--temp-dir", &folder.path().to_string_lossy()];
    let (cluster, session) = world(MEMORY_BYTES, Recovery::On, &words)?;
    let (_, stream) = begin(&session, LARGE)?;
    match files(folder.path()).is_empty() {
        true => Err("the workers have nothing of the result".into()),
        false => Ok((folder, cluster, session, stream)),
    }
}

fn gone() -> Result<(), Failed> {
    let (folder, _cluster, session, stream) = on_disk()?;
    drop(stream);
    must_be_gone(folder.path())?;
    assert_eq!((session.memory().used_bytes, session.progress()), (0, None));
    Ok(())
}

fn cancelled() -> Result<(), Failed> {
    let (folder, _cluster, session, mut stream) = on_disk()?;
    session.cancel_handle().cancel();
    must_be_gone(folder.path())?;
    assert!(matches!(stream.next(), Some(Err(EngineError::Cancelled))));
    drop(stream);
    assert_eq!(session.memory().used_bytes, 0);
    Ok(())
}

/// A client shows its ticket to the next process, and gets all rows from the first on, of which none is computed again.
fn fetched_again() -> Result<(), Failed> {
    let mut processes = Processes::start(WORKERS, true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let url = processes.url();
    let client = || {
        let connector = Connector::new(Security::default());
        let channel = connector.and_then(|connector| runtime.block_on(connector.connect(&url)));
        channel.map(FlightSqlServiceClient::new)
    };
    let mut first = client()?;
    let ticket = runtime.block_on(async {
        let info = first.execute(LARGE.to_owned(), None).await?;
        let ticket = info.endpoint[0].ticket.clone().unwrap_or_default();
        let mut stream = first.do_get(ticket.clone()).await?;
        match stream.try_next().await?.map(|b| b.num_rows()) {
            Some(rows) if rows > 0 => Ok::<_, FlightError>(ticket),
            other => Err(FlightError::protocol(format!("{other:?} rows"))),
        }
        // The stream goes on: it is not closed before the server is dead.
        .inspect(|_| processes.kill_server())
    })?;
    let computed: usize = processes.ended().values().sum();
    processes.start_server()?;
    processes.wait_for("a query goes on", 1)?;
    let mut second = client()?;
    let rows = runtime.block_on(async {
        let mut stream = second.do_get(ticket).await?;
        let mut rows = Rows::default();
        while let Some(batch) = stream.try_next().await? {
            rows.add_plain(&batch)?;
        }
        Ok::<_, FlightError>(rows)
    })?;
    assert_eq!(rows, Rows::expected()?);
    assert_eq!(processes.ended().values().sum::<usize>(), computed, "tasks have run again");
    Ok(())
}
