//! More queries at once than a cluster runs: the rest wait for their turn, and all are right.

use sqllogictest::harness::{Failed, Trial};

use super::restart::{ask, outcome};
use super::run::must_be_right;
use super::server::Processes;

const WORKERS: usize = 2;

/// A few more than run at a time.
const CLIENTS: usize = 80;

/// Long enough that the first has not ended when the last is asked.
const QUERY: &str = "SELECT count(DISTINCT md5(l_comment)) FROM lineitem";

pub fn trials() -> Vec<Trial> {
    vec![Trial::test("more queries than run at a time", crowd)]
}

fn crowd() -> Result<(), Failed> {
    let processes = Processes::start(WORKERS, false)?;
    let asked = (0..CLIENTS).map(|_| ask(&processes, QUERY)).collect::<Result<Vec<_>, _>>()?;
    for one in &asked {
        must_be_right(&outcome(one)?, QUERY)?;
    }
    processes.wait_for("a query waits", 1)?;
    Ok(processes.wait_for("query ends", CLIENTS)?)
}
