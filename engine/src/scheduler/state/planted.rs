//! Defects that can be switched on in tests, to show that the simulator finds such. Outside of tests there is no
//! switch, and each question is answered with no when it is compiled.

use super::query::Context;

/// A defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scheduler) enum PlantedBug {
    /// The outputs of a lost worker are taken to be still there.
    ForgetsLostOutputs,
    /// An attempt that was cancelled becomes the task's output when it finishes all the same.
    AcceptsTheSecond,
    /// A stage's outputs are released when the first of its readers has finished.
    ReleasesEarly,
    /// An output that cannot be made again as it was is made again although some of it was read.
    IgnoresReplayability,
    /// A second attempt is started although what the first has read is lost by now.
    SpeculatesBlindly,
    /// A query is answered when its last attempt has ended, not when its result is there.
    AnswersLate,
    /// A leaving worker is dismissed although a task reads what it holds.
    DismissesReadWorkers,
    /// A task that has failed is tried again without a pause.
    RetriesAtOnce,
    /// What a worker holds of a restored query is used although it may be made of what was made again since.
    AdoptsAnything,
}

impl Context<'_> {
    #[cfg(test)]
    pub fn has(&self, bug: PlantedBug) -> bool {
        self.planted == Some(bug)
    }

    #[cfg(not(test))]
    pub fn has(&self, _: PlantedBug) -> bool {
        false
    }
}
