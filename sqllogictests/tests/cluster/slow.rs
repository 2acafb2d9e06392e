//! Links that are slow but work: nobody is taken for lost, and the answers come.

use std::sync::Arc;
use std::time::Duration;

use dovetail_engine::Session;
use dovetail_server::cluster::Recovery;
use dovetail_server::security::SecurityFiles;
use dovetail_sqllogictests::cluster::Cluster;
use sqllogictest::harness::{Failed, Trial};

use super::data::{QUERIES, query, session, text};
use super::links::add_behind_link;
use super::proxy::{Link, Manner};
use super::run::{Outcome, must_be_right};

const WORKERS: usize = 3;

/// Messages come in pieces that end anywhere, about two megabytes a second.
const IN_PIECES: Manner =
    Manner { piece_bytes: 999, pause: Duration::from_micros(400), delay: Duration::ZERO };

/// Whatever is sent takes its time.
const LATE: Manner = Manner { delay: Duration::from_millis(20), ..Manner::QUICK };

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("messages of the scheduler come in pieces", || run(IN_PIECES, Manner::QUICK, &[9])),
        Trial::test("every segment on every link is 20 ms late", || run(LATE, LATE, &QUERIES)),
    ]
}

/// All workers are reached over links, and reach the scheduler over links.
fn run(control: Manner, outputs: Manner, numbers: &[usize]) -> Result<(), Failed> {
    // Without recovery a loss, and be it a false one, fails the query.
    let session: Arc<Session> = session();
    let mut cluster = Cluster::without_workers(&session, SecurityFiles::default(), Recovery::Off)?;
    let mut links = vec![];
    for _ in 0..WORKERS {
        let link = Link::with(cluster.address(), control)?;
        links.push((
            link.clone(),
            add_behind_link(&mut cluster, &format!("grpc://{}", link.address), outputs)?,
        ));
    }
    cluster.wait_for_slots(WORKERS as u32)?;
    for number in numbers {
        let sql = query(*number);
        let result = session.execute(&sql).map_err(|e| e.to_string())?;
        must_be_right(&Outcome::Answered(text(&result)), &sql)?;
    }
    for (control, outputs) in links {
        // One for messages; another where tables in memory are fetched, which there are none of here.
        if control.connections() != 1 {
            return Err(format!("a worker has joined {} times", control.connections()).into());
        }
        if outputs.connections() == 0 {
            return Err("nobody has read a worker's outputs over the link".into());
        }
    }
    Ok(())
}
