//! A result is fetched, again if need be: when the connection breaks before the first row has come, the ticket is shown
//! once more as soon as somebody answers, if the server has said that it goes on with its queries when it is started
//! again. One that knows of no such result after all says so, and then the connection is what the user hears of.
//!
//! What always holds: no row is given twice, because nothing is asked again once a row was there.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightInfo, Ticket};
use futures::TryStreamExt;
use tonic::Code;

use super::connect::Client;
use crate::flight_sql::is_durable;

/// How long a server that is gone is waited for, and the pause between two looks.
const RECONNECT_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(250);

/// Told, in one line, what a call waits for.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

/// The first rows of a result, and the rest.
pub struct Fetched {
    pub first: Option<RecordBatch>,
    pub rest: FlightRecordBatchStream,
}

/// Fetches what a FlightInfo promises, until its first rows are there.
pub async fn fetch(
    client: &mut Client,
    info: &FlightInfo,
    url: &str,
    notice: &Notice,
) -> Result<Fetched, FlightError> {
    let ticket = the_ticket(info)?;
    let mut broken: Option<(Instant, FlightError)> = None;
    loop {
        let error = match begin(client, ticket.clone()).await {
            Ok(fetched) => return Ok(fetched),
            Err(error) => error,
        };
        let is_broken = is_of_connection(&error);
        broken = Some(match broken {
            None if !is_broken || !is_durable(info) => return Err(error),
            None => {
                let seconds = RECONNECT_MAX.as_secs();
                notice(&format!(
                    "the connection to {url} was lost; waiting up to {seconds} s for the server"
                ));
                (Instant::now(), error)
            }
            Some((since, first)) if is_broken && since.elapsed() < RECONNECT_MAX => (since, first),
            Some((_, first)) if is_broken || is_unknown(&error) => return Err(first),
            Some(_) => return Err(error),
        });
        tokio::time::sleep(PAUSE).await;
    }
}

async fn begin(client: &mut Client, ticket: Ticket) -> Result<Fetched, FlightError> {
    let mut rest = client.do_get(ticket).await?;
    Ok(Fetched { first: rest.try_next().await?, rest })
}

/// Unless the session is set otherwise there is one endpoint, and it is the server itself.
pub fn the_ticket(info: &FlightInfo) -> Result<Ticket, FlightError> {
    let [endpoint] = info.endpoint.as_slice() else { return Err(elsewhere()) };
    if !endpoint.location.is_empty() {
        return Err(elsewhere());
    }
    endpoint
        .ticket
        .clone()
        .ok_or_else(|| FlightError::ProtocolError("an endpoint without a ticket".to_owned()))
}

/// The rows are not to be had from the server.
fn elsewhere() -> FlightError {
    let message = "the rows are at the workers, and this client fetches them from the server alone: SET \
                   result_endpoints = 'server' and run the query again";
    FlightError::ProtocolError(message.to_owned())
}

/// Not told by the server, but noticed on the way.
fn is_of_connection(error: &FlightError) -> bool {
    matches!(error, FlightError::Tonic(status) if status.source().is_some())
}

fn is_unknown(error: &FlightError) -> bool {
    matches!(error, FlightError::Tonic(status) if status.code() == Code::NotFound)
}
