//! Why a task failed, in the classes by which the scheduler decides what happens next.

use dovetail_engine::EngineError;
use dovetail_engine::scheduler::events::Failure;

/// The class of an error. By its variant, never by its text.
pub fn failure_of(error: &EngineError) -> Failure {
    match error {
        EngineError::Lost { outputs, .. } => Failure::InputLost(outputs.clone()),
        EngineError::Cancelled => Failure::Stopped,
        // A file may be readable from another machine, memory or disk may be free there.
        EngineError::Data { .. } | EngineError::Resources(_) => Failure::Transient,
        EngineError::Shuffle(e) => match e {
            dovetail_shuffle::ShuffleError::DiskFull { .. }
            | dovetail_shuffle::ShuffleError::Directory { .. }
            | dovetail_shuffle::ShuffleError::Io { .. } => Failure::Transient,
            // A file of the task's own, which only this attempt has written and read.
            e if e.is_loss() => Failure::Transient,
            // Conservation among them: the answer would be wrong.
            _ => Failure::Fatal,
        },
        EngineError::Plan(_)
        | EngineError::Execution(_)
        | EngineError::Unsupported(..)
        | EngineError::Internal(_) => Failure::Fatal,
    }
}

#[cfg(test)]
mod tests {
    use dovetail_shuffle::ShuffleError;

    use super::*;

    #[test]
    fn what_would_fail_anywhere_is_fatal() {
        assert_eq!(failure_of(&EngineError::execution("division by zero")), Failure::Fatal);
        let lost_rows = ShuffleError::Conservation { exchange: 1, partition: 0, written: 2, read: 1 };
        assert_eq!(failure_of(&lost_rows.into()), Failure::Fatal);
        let full = ShuffleError::DiskFull { dirs: vec![], bytes: 1 };
        assert_eq!(failure_of(&full.into()), Failure::Transient);
        assert_eq!(failure_of(&EngineError::Cancelled), Failure::Stopped);
    }
}
