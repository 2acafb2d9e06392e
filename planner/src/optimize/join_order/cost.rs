//! What a join costs: the rows it hands on (C_out), the rows it builds a table from, the rows it probes
//! with. Scanning is free: every order scans the same tables.
//!
//! The unit is one probed row. Building is dearer: a row is hashed, copied and later read at random;
//! the table may leave the cache.

/// Cost of a row that goes into a join's hash table.
const BUILD: f64 = 3.0;
/// Cost of a row that looks up a hash table in the cache, and how much each doubling beyond that adds.
const PROBE: f64 = 1.0;
const PROBE_PER_DOUBLING: f64 = 0.15;
/// Rows of a hash table that the second-level cache holds.
const CACHED: f64 = 16_384.0;
/// Cost of a row that a join hands on.
const OUTPUT: f64 = 1.0;
/// Cost of a row that is kept in the table and handed on after all probing.
const LATE_OUTPUT: f64 = 1.0;
/// Cost of a pair of rows that a nested loop compares.
const PAIR: f64 = 0.5;

/// A join to be costed, in rows.
#[derive(Debug, Clone, Copy)]
pub struct JoinRows {
    pub probe: f64,
    pub build: f64,
    pub output: f64,
    /// There is an equality to hash by.
    pub keyed: bool,
    /// The rows handed on are the build side's: semi, anti and outer joins turned round.
    pub emits_build: bool,
}

impl JoinRows {
    pub fn cost(self) -> f64 {
        let late = if self.emits_build { LATE_OUTPUT * self.output } else { 0.0 };
        let probe = PROBE + PROBE_PER_DOUBLING * (self.build / CACHED).max(1.0).log2();
        let matching = if self.keyed {
            BUILD * self.build + probe * self.probe
        } else {
            BUILD * self.build + PAIR * self.probe * self.build
        };
        matching + OUTPUT * self.output + late
    }
}
