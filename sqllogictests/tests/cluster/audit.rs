//! The audit of a cluster: which files a query has read, at which workers, also if the scheduler dies meanwhile.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use dovetail_server::remote::RemoteSession;
use dovetail_server::security::Security;
use sqllogictest::harness::{Failed, Trial};

use super::data::query;
use super::server::Processes;

const WORKERS: usize = 2;

/// A server that does not answer after this time hangs.
const HANGS: Duration = Duration::from_secs(120);

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("the audit tells files and workers", told),
        Trial::test("the audit survives the scheduler", survived),
    ]
}

fn connected(processes: &Processes) -> Result<RemoteSession, String> {
    let address = processes.url().parse().map_err(|e| format!("{e}"))?;
    RemoteSession::connect(&address, &Security::default()).map_err(|e| e.to_string())
}

/// The rows of a query, as a table.
fn rows(session: &RemoteSession, sql: &str) -> Result<String, String> {
    let stream = session.stream(sql).map_err(|e| format!("{sql}: {e}"))?;
    let batches: Vec<RecordBatch> = stream.collect::<Result<_, _>>().map_err(|e| format!("{sql}: {e}"))?;
    pretty_format_batches(&batches).map(|t| t.to_string()).map_err(|e| e.to_string())
}

/// The query must give one row with the values `true`.
fn must_hold(session: &RemoteSession, sql: &str) -> Result<(), String> {
    let table = rows(session, sql)?;
    match table.lines().count() == 5 && table.contains("true") && !table.contains("false") {
        true => Ok(()),
        false => Err(format!("{sql}\n{table}\n{}", rows(session, "SELECT * FROM system.audit")?)),
    }
}

fn told() -> Result<(), Failed> {
    let processes = Processes::start(WORKERS, true)?;
    let session = connected(&processes)?;
    rows(&session, &query(5))?;
    must_hold(
        &session,
        "SELECT outcome = 'succeeded' AS a, rows_out = 5 AS b, rows_read > 600000 AS c, bytes_read > 0 AS d, \
         plan_fingerprint IS NOT NULL AS e, settings LIKE '%memory_limit=%' AS f FROM system.audit",
    )?;
    // Each worker was sent tasks, and tells its version.
    must_hold(
        &session,
        "SELECT count(*) = 2 AS a, min(w['tasks']) > 0 AS b, count(DISTINCT w['name']) = 2 AS c, \
         count(DISTINCT w['version']) = 1 AS d FROM (SELECT unnest(workers) AS w FROM system.audit \
         WHERE sql LIKE '%n_name%' AND user_name = '' AND kind = 'query' AND statement_id = \
         (SELECT min(statement_id) FROM system.audit)) x",
    )?;
    // Each file was read by somebody, none has more rows than were looked at, and both workers have read something.
    must_hold(
        &session,
        "SELECT count(*) > 6 AS a, bool_and(i['etag'] IS NOT NULL) AS b, \
         bool_and(i['rows_read'] <= i['rows_total']) AS c, \
         bool_or(i['table_name'] = 'lineitem' AND i['rows_read'] > 0) AS d, max(array_length(i['workers'])) >= 1 AS e \
         FROM (SELECT unnest(inputs) AS i FROM system.audit WHERE statement_id = \
         (SELECT min(statement_id) FROM system.audit)) x",
    )?;
    Ok(())
}

fn survived() -> Result<(), Failed> {
    for _ in 0..20 {
        let mut processes = Processes::start(WORKERS, true)?;
        let (session, sql) = (connected(&processes)?, query(21));
        rows(&session, "SELECT 1 AS first")?;
        let running = std::thread::spawn(move || rows(&session, &sql));
        let start = Instant::now();
        while processes.ended().len() < 5 && !running.is_finished() {
            if start.elapsed() > HANGS {
                return Err("the query hangs".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        processes.kill_server();
        let was_early = running.is_finished();
        processes.start_server()?;
        running.join().map_err(|_| "the client has panicked")??;
        if was_early {
            continue;
        }
        let session = connected(&processes)?;
        // What had ended, what was interrupted, and that it went on, with the files that were read then.
        must_hold(
            &session,
            "SELECT count(*) = 1 AS a FROM system.audit WHERE sql = 'SELECT 1 AS first' AND outcome = 'succeeded'",
        )?;
        must_hold(
            &session,
            "SELECT count(*) = 1 AS a FROM system.audit WHERE sql LIKE '%numwait%' AND outcome = 'interrupted'",
        )?;
        must_hold(
            &session,
            "SELECT count(*) = 1 AS a, max(array_length(inputs)) > 0 AS b, max(array_length(workers)) > 0 AS c \
             FROM system.audit WHERE sql LIKE '%numwait%' AND sql NOT LIKE '%system.audit%' AND outcome = 'succeeded'",
        )?;
        return Ok(());
    }
    Err("the query was faster than the end of its server".into())
}
