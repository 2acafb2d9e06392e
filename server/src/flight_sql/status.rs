//! Errors of the engine as gRPC statuses: a class that programs understand, and the paragraph that the user
//! reads.

use std::error::Error;
use std::fmt::Write;

use dovetail_engine::EngineError;
use dovetail_planner::PlanError;
use dovetail_shuffle::ShuffleError;
use tonic::{Code, Status};

/// A message travels in a header, where every unusual byte takes three, and clients take headers of 8 KB.
const MESSAGE_HEADER_BYTES_MAX: usize = 6 << 10;

/// An error of the engine, for a client.
pub fn status(e: &EngineError) -> Status {
    let code = match e {
        EngineError::Plan(PlanError::Internal(_)) | EngineError::Internal(_) => Code::Internal,
        EngineError::Plan(PlanError::Unsupported { .. }) | EngineError::Unsupported(..) => {
            Code::Unimplemented
        }
        EngineError::Plan(PlanError::Syntax { .. } | PlanError::Invalid { .. })
        | EngineError::Execution(_) => Code::InvalidArgument,
        EngineError::Data { .. } => Code::FailedPrecondition,
        EngineError::Shuffle(ShuffleError::DiskFull { .. }) | EngineError::Resources(_) => {
            Code::ResourceExhausted
        }
        EngineError::Lost { .. } => Code::Unavailable,
        EngineError::Shuffle(_) => Code::Internal,
        EngineError::Cancelled => Code::Cancelled,
    };
    match code {
        Code::Internal => tracing::error!(error = %e, "a statement failed"),
        Code::ResourceExhausted => tracing::warn!(error = %e, "refused: a statement has met a limit"),
        _ => {}
    }
    Status::new(code, shortened(paragraph(e)))
}

/// A thread that was to do something for a client is gone.
pub fn lost(e: &tokio::task::JoinError) -> Status {
    tracing::error!(error = %e, "a statement's thread ended");
    Status::internal("internal error: the statement ended without a result; please report it with the query")
}

/// The error and what led to it.
fn paragraph(e: &EngineError) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {e}");
        source = e.source();
    }
    text
}

fn shortened(mut text: String) -> String {
    let cost = |c: char| if c.is_ascii_graphic() && c != '%' { 1 } else { 3 * c.len_utf8() };
    let mut bytes = 0;
    let end = text.char_indices().find(|&(_, c)| {
        bytes += cost(c);
        bytes > MESSAGE_HEADER_BYTES_MAX
    });
    if let Some((end, _)) = end {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_to_what_a_header_holds() {
        let long = "ä ".repeat(10_000);
        let status = status(&EngineError::execution(long));
        assert!(status.message().ends_with('…') && status.message().len() < MESSAGE_HEADER_BYTES_MAX);
        assert_eq!(super::status(&EngineError::execution("a\n  b")).message(), "a\n  b");
    }

    #[test]
    fn the_class_survives() {
        assert_eq!(status(&EngineError::Cancelled).code(), Code::Cancelled);
        assert_eq!(status(&EngineError::Resources("x".into())).code(), Code::ResourceExhausted);
        assert_eq!(status(&PlanError::invalid("x").into()).code(), Code::InvalidArgument);
        assert_eq!(status(&PlanError::unsupported("x", "y").into()).code(), Code::Unimplemented);
    }
}
