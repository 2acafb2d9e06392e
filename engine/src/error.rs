//! What can go wrong while a query runs, each written for the person who typed it.

use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use thiserror::Error;

use crate::scheduler::events::OutputId;

/// The engine's result.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// An error of the engine. Cheap to pass between threads; the class decides what is retried.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The planner refused the query.
    #[error(transparent)]
    Plan(#[from] dovetail_planner::PlanError),
    /// A value does not allow what the query does with it: division by zero, overflow, a failed cast, a
    /// scalar subquery with two rows.
    #[error("{0}")]
    Execution(String),
    /// A file is missing, unreadable, malformed or not what it was when the query was planned.
    #[error("{place}: {message}")]
    Data { place: String, message: String },
    /// Rows could not be spilled, or not be read again.
    #[error(transparent)]
    Shuffle(#[from] dovetail_shuffle::ShuffleError),
    /// The query needs more than a limit allows.
    #[error("{0}")]
    Resources(String),
    /// What a task was to read is gone, with the worker that held it or from its disk. It is made again; a user
    /// meets this only when that has failed too often.
    #[error("{message}")]
    Lost { outputs: Vec<OutputId>, message: String },
    /// Somebody asked the query to stop.
    #[error("the query was cancelled")]
    Cancelled,
    /// The engine has no kernel or operator for this; `1` says what to do instead.
    #[error("{0} is not supported. {1}")]
    Unsupported(String, String),
    /// A defect of ours.
    #[error("internal error: {0}; please report it with the query")]
    Internal(String),
}

impl EngineError {
    /// A defect of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        EngineError::Internal(message.into())
    }

    /// An error of the data or the query at run time.
    pub fn execution(message: impl Into<String>) -> Self {
        EngineError::Execution(message.into())
    }
}

impl From<ArrowError> for EngineError {
    fn from(e: ArrowError) -> Self {
        match e {
            ArrowError::DivideByZero => EngineError::Execution("division by zero".into()),
            ArrowError::ArithmeticOverflow(m) => EngineError::Execution(format!(
                "arithmetic overflow: {m}; cast an operand to a wider type, e.g. DECIMAL(38, s) or DOUBLE"
            )),
            ArrowError::CastError(m) => EngineError::Execution(format!("{m}; TRY_CAST gives NULL instead")),
            ArrowError::ExternalError(e) => EngineError::Execution(e.to_string()),
            other => EngineError::Execution(other.to_string()),
        }
    }
}

impl From<DataFusionError> for EngineError {
    fn from(e: DataFusionError) -> Self {
        match e {
            DataFusionError::ArrowError(e, _) => (*e).into(),
            DataFusionError::Execution(m) => EngineError::Execution(m),
            DataFusionError::Context(_, inner) => (*inner).into(),
            DataFusionError::Internal(m) => EngineError::Internal(m),
            other => EngineError::Execution(other.strip_backtrace()),
        }
    }
}
