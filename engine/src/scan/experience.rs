//! What the tasks of a scan have learnt so far: what each test costs and brings, and which columns are needed.
//!
//! It decides in which order tests run and which columns are opened together, never which rows go on. So the tasks
//! of a scan share it in whatever way they come to run in one process. Where each task has a scan of its own, as on
//! the workers of a cluster, beginning without experience each time cost TPC-H q08 a tenth of its time: the first
//! row groups of each task were tested in the wrong order, and opened column by column.

use std::sync::atomic::{AtomicU64, Ordering};

use dovetail_planner::physical::Scan;

/// A runtime filter that keeps more than this share of the rows is not worth its tests.
const KEEPS_MOST: f64 = 0.9;

/// Rows tested before a filter is judged.
const JUDGED_AFTER_ROWS: u64 = 100_000;

/// Row groups after which columns that were always needed are opened at once.
const HABIT_GROUPS_MIN: u64 = 3;

/// Of one scan.
pub struct Experience {
    /// By number: the conjuncts, then the runtime filters.
    pub tests: Vec<Record>,
    pub habits: Habits,
}

/// What a test has cost so far, and what it has brought.
#[derive(Default)]
pub struct Record {
    rows: AtomicU64,
    kept: AtomicU64,
    nanos: AtomicU64,
}

/// Which columns the row groups of the scan have needed so far.
pub struct Habits {
    groups: AtomicU64,
    uses: Vec<AtomicU64>,
}

impl Experience {
    /// None yet.
    pub fn of(scan: &Scan) -> Experience {
        let tests = scan.filters.len() + scan.runtime_filters.len();
        Experience {
            tests: (0..tests).map(|_| Record::default()).collect(),
            habits: Habits {
                groups: AtomicU64::new(0),
                uses: scan.columns.iter().map(|_| AtomicU64::new(0)).collect(),
            },
        }
    }
}

impl Record {
    /// Notes a test.
    pub fn count(&self, rows: usize, kept: usize, nanos: u64) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.kept.fetch_add(kept as u64, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Nanoseconds for each row dropped; none before the first test.
    pub fn price(&self) -> Option<f64> {
        let rows = self.rows.load(Ordering::Relaxed) as f64;
        let dropped = rows - self.kept.load(Ordering::Relaxed) as f64;
        (rows > 0.0).then(|| self.nanos.load(Ordering::Relaxed) as f64 / dropped.max(rows / 1000.0))
    }

    /// The test has been tried and drops too little.
    pub fn keeps_most(&self) -> bool {
        let rows = self.rows.load(Ordering::Relaxed);
        rows >= JUDGED_AFTER_ROWS && self.kept.load(Ordering::Relaxed) as f64 > rows as f64 * KEEPS_MOST
    }
}

impl Habits {
    /// Counts a row group of which rows may pass.
    pub fn count_group(&self) {
        self.groups.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a row group that needs a column.
    pub fn count_use(&self, column: usize) {
        self.uses[column].fetch_add(1, Ordering::Relaxed);
    }

    /// The columns that at least seven row groups of eight have needed; none before there is experience.
    pub fn columns(&self) -> Vec<usize> {
        // Not those that are being read.
        let groups = self.groups.load(Ordering::Relaxed);
        if groups < HABIT_GROUPS_MIN {
            return vec![];
        }
        let habitual = |uses: &AtomicU64| 8 * uses.load(Ordering::Relaxed) >= 7 * groups;
        (0..self.uses.len()).filter(|column| habitual(&self.uses[*column])).collect()
    }
}
