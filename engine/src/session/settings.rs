//! The settings of a session: `SET name = value`, `RESET name`, `SHOW name`.
//!
//! What always holds: a setting that is taken is honoured by every statement that is prepared from then on, and of
//! this session only; what was given when Dovetail started is shown beside them, and refused to be changed.

use std::time::Duration;

use dovetail_planner::lower::Parallelism;
use parking_lot::RwLock;

use super::{ResultStream, Session, SessionOptions};
use crate::error::{EngineError, Result};
use crate::memory::{LimitScope, readable};
use crate::task::Deadline;

/// More partitions cost more than they bring, on any machine.
const PARTITIONS_MAX: usize = 1024;

/// All of them, as statements name them; those that can be changed.
const CHANGEABLE: [&str; 4] = ["max_result_rows", "partitions", "result_endpoints", "statement_timeout"];
const GIVEN: [&str; 5] = ["memory_limit", "memory_per_session", "memory_per_user", "scheduler", "threads"];

/// Where clients fetch results.
const SERVER: &str = "server";
const WORKERS: &str = "workers";

/// Units of a time, the longest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)];

/// What a session has set. Cheap to look at.
#[derive(Default)]
pub struct Settings(RwLock<Set>);

#[derive(Debug, Clone, Copy, Default)]
struct Set {
    partitions: Option<usize>,
    /// None: as long as it takes.
    statement_timeout: Option<Duration>,
    /// None: what the options say.
    max_result_rows: Option<u64>,
    /// Clients fetch rows from the workers that have them, where there are any.
    endpoints_are_workers: bool,
}

impl Session {
    /// Whether there is a setting of a name that can be changed.
    pub fn can_set(name: &str) -> bool {
        CHANGEABLE.contains(&name)
    }

    /// Changes a setting for the session's statements from now on. The value is as in SQL, text without its quotes;
    /// DEFAULT undoes it.
    ///
    /// # Errors
    /// There is no such setting, it cannot be changed, or the value is not one of it.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        if value.eq_ignore_ascii_case("default") {
            return self.reset(name);
        }
        let set = &self.settings.0;
        match name {
            "partitions" => set.write().partitions = Some(partitions(value)?),
            "statement_timeout" => set.write().statement_timeout = timeout(value)?,
            "max_result_rows" => set.write().max_result_rows = rows(value, &self.options)?,
            "result_endpoints" => set.write().endpoints_are_workers = endpoints_are_workers(value)?,
            _ => return Err(cannot_change(name)),
        }
        Ok(())
    }

    /// Undoes what was set; `all` undoes everything.
    pub fn reset(&self, name: &str) -> Result<()> {
        let mut set = self.settings.0.write();
        match name {
            "partitions" => set.partitions = None,
            "statement_timeout" => set.statement_timeout = None,
            "max_result_rows" => set.max_result_rows = None,
            "result_endpoints" => set.endpoints_are_workers = false,
            "all" => *set = Set::default(),
            _ => return Err(cannot_change(name)),
        }
        Ok(())
    }

    /// All settings, by name, as they are for the session's next statement.
    pub fn settings(&self) -> [(&'static str, String); 9] {
        let set = *self.settings.0.read();
        let partitions = set.partitions.or(self.options.partitions);
        let part = |scope| self.memory.limit_of(scope).map_or("none".into(), |bytes| readable(bytes as u64));
        [
            ("max_result_rows", self.max_result_rows().unwrap_or(0).to_string()),
            ("memory_limit", readable(self.memory.root().limit_bytes() as u64)),
            ("memory_per_session", part(LimitScope::Session)),
            ("memory_per_user", part(LimitScope::User)),
            ("partitions", partitions.map_or("automatic".into(), |n| n.to_string())),
            ("result_endpoints", if set.endpoints_are_workers { WORKERS } else { SERVER }.into()),
            ("scheduler", format!("{:?}", self.options.scheduler).to_lowercase()),
            ("statement_timeout", set.statement_timeout.map_or("0".into(), time_text)),
            ("threads", self.options.threads.to_string()),
        ]
    }

    /// As wide as the session wants it, instead.
    pub(super) fn widened(&self, usual: Parallelism) -> Parallelism {
        match self.settings.0.read().partitions {
            Some(n) => Parallelism { tasks: n as u32, partitions: n as u32, ..usual },
            None => usual,
        }
    }

    /// Of a statement that starts now.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.settings.0.read().statement_timeout.and_then(Deadline::after)
    }

    /// Lets a result have no more rows than the session may get.
    pub(super) fn bounded(&self, result: ResultStream) -> ResultStream {
        let Some(max) = self.max_result_rows() else {
            return result;
        };
        let ResultStream { schema, kind, batches } = result;
        let mut seen = 0;
        let batches = batches.map(move |batch| {
            let batch = batch?;
            seen += batch.num_rows() as u64;
            match seen > max {
                true => Err(too_many(max)),
                false => Ok(batch),
            }
        });
        ResultStream { schema, kind, batches: Box::new(UntilError { batches, is_over: false }) }
    }

    /// Whether clients fetch results from the workers that have them.
    pub(super) fn result_endpoints_are_workers(&self) -> bool {
        self.settings.0.read().endpoints_are_workers
    }

    /// Refuses a result of more rows than the session may get.
    pub(super) fn check_rows(&self, rows: u64) -> Result<()> {
        match self.max_result_rows() {
            Some(max) if rows > max => Err(too_many(max)),
            _ => Ok(()),
        }
    }

    fn max_result_rows(&self) -> Option<u64> {
        self.settings.0.read().max_result_rows.or(self.options.max_result_rows)
    }
}

fn too_many(max: u64) -> EngineError {
    EngineError::Resources(format!(
        "the result has more than {max} rows, the most that max_result_rows allows; add LIMIT or a filter"
    ))
}

/// Batches, and nothing behind an error.
struct UntilError<I> {
    batches: I,
    is_over: bool,
}

impl<T, I: Iterator<Item = Result<T>>> Iterator for UntilError<I> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        if self.is_over {
            return None;
        }
        let next = self.batches.next();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

fn cannot_change(name: &str) -> EngineError {
    match GIVEN.contains(&name) {
        true => EngineError::Unsupported(
            format!("changing the setting '{name}'"),
            "It is given when Dovetail starts: see `dovetail --help`".into(),
        ),
        false => unknown(name, &CHANGEABLE),
    }
}

/// There is no such setting; these are the ones that there are.
pub fn unknown(name: &str, known: &[&str]) -> EngineError {
    EngineError::execution(format!("there is no setting '{name}'; the settings are {}", known.join(", ")))
}

fn partitions(value: &str) -> Result<usize> {
    let number = value.parse().ok().filter(|n| (1..=PARTITIONS_MAX).contains(n));
    number.ok_or_else(|| {
        EngineError::execution(format!("partitions is a number from 1 to {PARTITIONS_MAX}, not '{value}'"))
    })
}

fn endpoints_are_workers(value: &str) -> Result<bool> {
    match value.to_lowercase().as_str() {
        SERVER => Ok(false),
        WORKERS => Ok(true),
        _ => Err(EngineError::execution(format!(
            "result_endpoints is '{SERVER}' or '{WORKERS}', which hand results out themselves, not '{value}'"
        ))),
    }
}

/// None: as long as it takes.
fn timeout(value: &str) -> Result<Option<Duration>> {
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = value.split_at(digits);
    let unit = Some(unit.trim()).filter(|u| !u.is_empty()).unwrap_or("ms");
    let factor = UNITS.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name)).map(|(_, factor)| factor);
    let ms = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(*factor));
    match ms {
        Some(0) => Ok(None),
        Some(ms) => Ok(Some(Duration::from_millis(ms))),
        None => Err(EngineError::execution(format!(
            "statement_timeout is milliseconds, or a time such as '30s' or '5min', or 0 for none; not '{value}'"
        ))),
    }
}

fn time_text(time: Duration) -> String {
    let ms = time.as_millis() as u64;
    let whole = UNITS.iter().find(|(_, factor)| ms.is_multiple_of(*factor));
    whole.map_or_else(|| format!("{ms}ms"), |(name, factor)| format!("{}{name}", ms / factor))
}

/// None: what the options say.
fn rows(value: &str, options: &SessionOptions) -> Result<Option<u64>> {
    let Ok(wanted) = value.parse::<u64>() else {
        return Err(EngineError::execution(format!(
            "max_result_rows is a number of rows, or 0 for any number; not '{value}'"
        )));
    };
    let wanted = Some(wanted).filter(|rows| *rows > 0);
    match options.max_result_rows {
        Some(max) if wanted.is_none_or(|rows| rows > max) => Err(EngineError::execution(format!(
            "max_result_rows is {max} at most here: that was given when Dovetail started"
        ))),
        _ => Ok(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(max_result_rows: Option<u64>) -> Session {
        Session::new(SessionOptions { max_result_rows, ..SessionOptions::default() }).unwrap()
    }

    fn shown(session: &Session, name: &str) -> String {
        session.settings().into_iter().find(|(n, _)| *n == name).unwrap().1
    }

    #[test]
    fn each_session_has_its_own() {
        let (one, another) = (session(None), session(None).connect());
        one.execute("SET statement_timeout = '90s'").unwrap();
        one.execute("SET partitions TO 3").unwrap();
        assert_eq!((shown(&one, "statement_timeout"), shown(&one, "partitions")), ("90s".into(), "3".into()));
        assert_eq!(shown(&another, "statement_timeout"), "0");
        one.execute("RESET ALL").unwrap();
        assert_eq!(
            (shown(&one, "statement_timeout"), shown(&one, "partitions")),
            ("0".into(), "automatic".into())
        );
    }

    #[test]
    fn times_are_read_and_shown() {
        for (text, shown) in
            [("0", None), ("1500", Some("1500ms")), ("60 s", Some("1min")), ("2h", Some("2h"))]
        {
            assert_eq!(timeout(text).unwrap().map(time_text).as_deref(), shown, "{text}");
        }
        for text in ["", "s", "-1", "1.5s", "1 day", "99999999999999999999", "9999999999999999999h"] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_result_has_no_more_rows_than_it_may() {
        let session = session(Some(10));
        let count = |rows: usize| {
            let values = vec!["(1)"; rows].join(", ");
            session.execute(&format!("SELECT * FROM (VALUES {values}) t(a)")).map(|r| r.rows())
        };
        assert_eq!(count(10).unwrap(), 10);
        assert!(count(11).unwrap_err().to_string().contains("max_result_rows"));
        session.set("max_result_rows", "5").unwrap();
        assert!(count(6).is_err() && count(5).is_ok());
        for more in ["11", "0"] {
            assert!(session.set("max_result_rows", more).unwrap_err().to_string().contains("10 at most"));
        }
        session.reset("max_result_rows").unwrap();
        assert_eq!(count(10).unwrap(), 10);
    }

    #[test]
    fn a_statement_ends_when_its_time_is_over() {
        let session = session(None);
        session.set("statement_timeout", "50ms").unwrap();
        // Hours of work.
        let slow = "WITH d AS (SELECT v FROM (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) t(v)) \
            SELECT sum(a.v + b.v * c.v - e.v + f.v * g.v - h.v + i.v * j.v - k.v + l.v) \
            FROM d a, d b, d c, d e, d f, d g, d h, d i, d j, d k, d l";
        let told = session.execute(slow).unwrap_err().to_string();
        assert!(told.contains("statement_timeout"), "{told}");
        session.set("statement_timeout", "0").unwrap();
        assert_eq!(session.execute("SELECT 1").unwrap().rows(), 1);
    }
}
