//! Tasks that are defective or want too much: their query fails, the worker lives, and others do not notice.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use dovetail_engine::{LimitScope, Session};
use dovetail_planner::functions::add_scalar;
use dovetail_server::cluster::Recovery;
use dovetail_sqllogictests::cluster::Cluster;
use sqllogictest::harness::{Failed, Trial};

use super::data::{query, session, text};
use super::run::{Outcome, must_be_right};
use super::spilling::must_be_gone;

const WORKERS: usize = 2;

/// What the defect says.
const DEFECT: &str = "a defect that was planted";

/// Cannot spill, and needs more than [`LIMIT`].
const TOO_LARGE: &str = "SELECT length(string_agg(l_comment || c_comment, '' ORDER BY l_tax)) \
    FROM lineitem, orders, customer WHERE l_orderkey = o_orderkey AND o_custkey = c_custkey";
const LIMIT: &str = "32MiB";

/// Adds the function that panics, for this process. To be called before anything else.
pub fn add_functions() {
    let panics = Panics { signature: Signature::exact(vec![DataType::Int64], Volatility::Immutable) };
    assert!(add_scalar(vec![Arc::new(ScalarUDF::new_from_impl(panics))]), "functions are added once");
}

/// `panics(x)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Panics {
    signature: Signature,
}

impl ScalarUDFImpl for Panics {
    fn name(&self) -> &str {
        "panics"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> datafusion_common::Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> datafusion_common::Result<ColumnarValue> {
        panic!("{DEFECT}")
    }
}

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("a task panics", || {
            beside_another("SELECT sum(panics(l_orderkey)) FROM lineitem", None, &[DEFECT, "please report"])
        }),
        Trial::test("a task runs out of memory", || {
            beside_another(TOO_LARGE, None, &["aggregation", " needs ", "32.0 MiB", "--memory-limit"])
        }),
        Trial::test("a task runs out of its user's memory", || {
            let words = ["aggregation", " needs ", "limit of a user is 8.0 MiB", "--memory-per-user"];
            beside_another(TOO_LARGE, Some(8 << 20), &words)
        }),
    ]
}

/// The query, of a user who may hold so much, fails and says these words; another one at the same time is answered, by the same processes.
fn beside_another(sql: &str, of_user: Option<u64>, words: &[&str]) -> Result<(), Failed> {
    let other = query(5);
    let folder = tempfile::tempdir()?;
    let session = session();
    // Without recovery a loss would fail the other query.
    let options = ["--memory-limit", LIMIT, "--temp-dir", &folder.path().to_string_lossy()];
    let mut cluster = Cluster::with_recovery(&session, WORKERS, &options, Recovery::Off)?;
    let part = |bytes| session.governor().child(LimitScope::User, bytes);
    let of_user =
        of_user.map_or_else(|| session.clone(), |bytes| Arc::new(session.connect_within(part(bytes))));
    std::thread::scope(|scope| {
        let failing = scope.spawn(|| execute(&of_user, sql));
        let mut answers = 0;
        while answers == 0 || !failing.is_finished() {
            let answer = execute(&session, &other)?;
            must_be_right(&Outcome::Answered(answer), &other)?;
            answers += 1;
        }
        let Err(error) = failing.join().expect("a query does not panic") else {
            return Err("the query was answered".to_owned());
        };
        match words.iter().find(|word| !error.contains(**word)) {
            Some(word) => Err(format!("the error does not say '{word}': {error}")),
            None => Ok(()),
        }
    })?;
    must_be_gone(folder.path())?;
    let lives = |worker| matches!(cluster.worker(worker).try_wait(), Ok(None));
    if !(0..WORKERS).all(lives) || cluster.slots() != WORKERS as u32 {
        return Err("a worker has not survived".into());
    }
    Ok(())
}

fn execute(session: &Arc<Session>, sql: &str) -> Result<String, String> {
    session.execute(sql).map(|result| text(&result)).map_err(|e| e.to_string())
}
