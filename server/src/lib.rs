//! The engine on the network: the scheduler process, the worker process, Flight SQL.
//!
//! ```text
//! client ─ Flight SQL ─▶ flight_sql ─▶ engine::Session ─ query ─▶ cluster (scheduler process)
//!                                                                    │ control.proto, one stream a worker
//!                                            worker process ◀────────┘
//!                                                 └─ data: outputs fetched over Arrow Flight ─▶ other workers
//! ```

pub mod audit;
pub mod cluster;
mod connect;
mod data;
mod error;
pub mod flight_sql;
mod host;
pub mod journal;
mod listen;
pub mod remote;
pub mod security;
pub mod worker;

pub use connect::Connector;
pub use error::{Result, ServerError};
pub use listen::Listening;

/// The messages of `proto/control.proto`.
pub mod control {
    #![allow(missing_docs, clippy::all, clippy::pedantic)]
    tonic::include_proto!("dovetail.control");
}

/// The records of `proto/journal.proto`.
pub(crate) mod records {
    #![allow(missing_docs, clippy::all, clippy::pedantic)]
    tonic::include_proto!("dovetail.journal");
}
