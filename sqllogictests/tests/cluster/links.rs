//! Connections that break: between two workers, and between a worker and the scheduler.

use std::net::TcpListener;

use dovetail_server::cluster::Recovery;
use sqllogictest::harness::{Failed, Trial};

use super::data::query;
use super::losses::{World, world};
use super::proxy::Link;
use super::run::{must_be_right, until_in_time, with_fault};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("the link to a worker's outputs is interrupted", || outputs(Link::interrupt)),
        Trial::test("the link to a worker's outputs is cut", || outputs(Link::cut)),
        Trial::test("the link of a worker to the scheduler is interrupted", || control(Link::interrupt)),
        Trial::test("the link of a worker to the scheduler is cut", || control(Link::cut)),
    ]
}

/// Two workers, and a third one whose outputs are reached over a link.
fn outputs(harm: fn(&Link)) -> Result<(), Failed> {
    let sql = query(9);
    let start = || -> Result<(World, Link), String> {
        let (mut cluster, session) = world(2, Recovery::On)?;
        // A port that is free now; who takes it in between fails the test by name.
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?;
        let link = Link::to(port).map_err(|e| e.to_string())?;
        let (listen, advertise) = (port.to_string(), format!("grpc://{}", link.address));
        cluster.add(&["--listen", &listen, "--advertise", &advertise]).map_err(|e| e.to_string())?;
        cluster.wait_for_slots(3).map_err(|e| e.to_string())?;
        Ok(((cluster, session), link))
    };
    let (outcome, _world) =
        until_in_time(start, |((_, session), link)| with_fault(session, &sql, 0.4, || harm(link)))?;
    Ok(must_be_right(&outcome, &sql)?)
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
