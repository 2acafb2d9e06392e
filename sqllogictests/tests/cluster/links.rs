//! Connections that break: between two workers, and between a worker and the scheduler.

use std::net::{SocketAddr, TcpListener};

use dovetail_server::cluster::Recovery;
use dovetail_sqllogictests::cluster::Cluster;
use sqllogictest::harness::{Failed, Trial};

use super::data::{QUERIES, query};
use super::losses::{World, world};
use super::proxy::{Link, Manner};
use super::run::{Outcome, must_be_right, must_fail, until_in_time, with_fault};

/// Bytes of outputs after which a stream is reset, one after the other.
const RESET_AFTER_BYTES: [u64; 6] = [20_000, 5_000, 2_000, 1_000, 500, 50_000];

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("the link to a worker's outputs is interrupted", || outputs(Link::interrupt)),
        Trial::test("the link to a worker's outputs is cut", || outputs(Link::cut)),
        Trial::test("the link of a worker to the scheduler is interrupted", || control(Link::interrupt)),
        Trial::test("the link of a worker to the scheduler is cut", || control(Link::cut)),
    ];
    for number in QUERIES {
        let name = format!("a stream of outputs is reset, query {number}");
        trials.push(Trial::test(name, move || reset(number)));
    }
    trials
}

/// A port that is free now; who takes it in between fails the test by name.
pub fn free_port() -> Result<SocketAddr, String> {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())
}

/// One worker more, whose outputs are reached over a link.
pub fn add_behind_link(cluster: &mut Cluster, url: &str, manner: Manner) -> Result<Link, String> {
    let port = free_port()?;
    let link = Link::with(port, manner).map_err(|e| e.to_string())?;
    let (listen, advertise) = (port.to_string(), format!("grpc://{}", link.address));
    let words = ["--listen", &listen, "--advertise", &advertise];
    cluster.add_through(url, &words).map_err(|e| e.to_string())?;
    Ok(link)
}

/// Two workers, and a third one whose outputs are reached over a link.
fn with_link() -> Result<(World, Link), String> {
    let (mut cluster, session) = world(2, Recovery::On)?;
    let url = cluster.url().to_owned();
    let link = add_behind_link(&mut cluster, &url, Manner::QUICK)?;
    cluster.wait_for_slots(3).map_err(|e| e.to_string())?;
    Ok(((cluster, session), link))
}

fn outputs(harm: fn(&Link)) -> Result<(), Failed> {
    let sql = query(9);
    let (outcome, _world) =
        until_in_time(with_link, |((_, session), link)| with_fault(session, &sql, 0.4, || harm(link)))?;
    Ok(must_be_right(&outcome, &sql)?)
}

/// In the middle of a stream its connection is gone, with what was under way. All workers are reached over links.
fn reset(number: usize) -> Result<(), Failed> {
    let sql = query(number);
    for recovery in [Recovery::Off, Recovery::On] {
        let start = || -> Result<(World, Vec<Link>), String> {
            let (mut cluster, session) = world(0, recovery)?;
            let url = cluster.url().to_owned();
            let links: Result<Vec<Link>, String> =
                (0..3).map(|_| add_behind_link(&mut cluster, &url, Manner::QUICK)).collect();
            cluster.wait_for_slots(3).map_err(|e| e.to_string())?;
            Ok(((cluster, session), links?))
        };
        let mut bytes = RESET_AFTER_BYTES.into_iter().cycle();
        let (outcome, _world) = until_in_time(start, |((_, session), links)| {
            let after = bytes.next().unwrap_or_default();
            let breaks = || links.iter().for_each(|link| link.break_after(after));
            let outcome = with_fault(session, &sql, 0.0, breaks)?;
            // It may have been the end of a stream, after all that is needed.
            let is_harmless = recovery == Recovery::Off && matches!(outcome, Outcome::Answered(_));
            let has_struck = links.iter().any(Link::has_broken) && !is_harmless;
            Ok(if has_struck { outcome } else { Outcome::TooEarly })
        })?;
        match recovery {
            Recovery::Off => must_fail(&outcome)?,
            Recovery::On => must_be_right(&outcome, &sql)?,
        }
    }
    Ok(())
}

/// Two workers, and a third one that reaches the scheduler over a link.
fn control(harm: fn(&Link)) -> Result<(), Failed> {
    let sql = query(9);
    let start = || -> Result<(World, Link), String> {
        let (mut cluster, session) = world(2, Recovery::On)?;
        let link = Link::to(cluster.address()).map_err(|e| e.to_string())?;
        cluster.add_through(&format!("grpc://{}", link.address), &[]).map_err(|e| e.to_string())?;
        cluster.wait_for_slots(3).map_err(|e| e.to_string())?;
        Ok(((cluster, session), link))
    };
    let (outcome, _world) =
        until_in_time(start, |((_, session), link)| with_fault(session, &sql, 0.4, || harm(link)))?;
    Ok(must_be_right(&outcome, &sql)?)
}
