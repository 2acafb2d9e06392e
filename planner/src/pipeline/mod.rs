//! The work of an SQL stage: pipelines from a source through operators into a sink.
//!
//! `lower` cuts a physical plan at its pipeline breakers. Everything between two cuts is one
//! [`Pipeline`]; a breaker is the sink of one stage and the source of a later one. A stage has several
//! branches where a UNION ALL feeds it: each branch has tasks of its own, numbered one branch after the
//! other, and all of them feed the same kind of sink.

mod bind;
mod hold;
mod in_memory;
mod marks;
mod replay;
mod shares;
mod split;

pub use hold::hold_build_rows;
pub use in_memory::reads_memory;
pub use marks::{Marks, marking_columns, without_build_rows};
pub use shares::{Share, Shared, can_share, share_at_join};
pub use split::{Split, split_at_join};

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::expr::Expr;
use crate::graph::{Stage, StageId, TaskGraph};
use crate::physical::{
    Aggregate, HashJoin, Limit, NestedLoopJoin, Recursive, Scan, Sort, Unnest, Values, Window,
};

/// The graph of an SQL query.
pub type QueryGraph = TaskGraph<StageWork>;

/// A stage of an SQL query.
pub type QueryStage = Stage<StageWork>;

/// The operator number of a source that only reads again what an operator has already counted.
pub const NO_OPERATOR: u32 = u32::MAX;

/// What the tasks of one SQL stage do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageWork {
    pub branches: Vec<Branch>,
    pub sink: Sink,
    /// Types of the rows that reach the sink.
    pub sink_schema: SchemaRef,
    /// Number of the plan operator that the sink belongs to.
    pub sink_operator: u32,
}

/// One input of a stage, with the operators its rows pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Branch {
    /// Tasks of this branch; those of all branches add up to the stage's.
    pub tasks: u32,
    pub source: Source,
    pub source_schema: SchemaRef,
    /// Number of the plan operator that the source belongs to, or [`NO_OPERATOR`].
    pub source_operator: u32,
    pub steps: Vec<Step>,
}

/// An operator in a pipeline, with the schema of what it hands on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub transform: Transform,
    pub schema: SchemaRef,
    /// Number of the plan operator.
    pub operator: u32,
}

/// Where a pipeline's rows come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// A table. On one machine the tasks draw row groups from one queue.
    Scan(Scan),
    Values(Values),
    /// Rows that an earlier stage's [`Sink::Collect`] kept: task `i` of `n` reads every `n`-th of the
    /// outputs' batches.
    Collected {
        stage: StageId,
    },
    /// Hash partition `i` of an earlier stage's [`Sink::Aggregate`], merged into final groups.
    AggregateFinal {
        stage: StageId,
        aggregate: Aggregate,
        input_schema: SchemaRef,
    },
    /// Hash partition `i` of rows (an earlier [`Sink::HashPartition`]), aggregated from scratch: for
    /// DISTINCT and ordered aggregates, whose partial states cannot be merged.
    AggregateSingle {
        stage: StageId,
        aggregate: Aggregate,
        input_schema: SchemaRef,
    },
    /// The sorted runs of an earlier stage's [`Sink::Sort`], merged; one task.
    SortMerge {
        stage: StageId,
        sort: Sort,
    },
    /// Hash partition `i` of an earlier [`Sink::HashPartition`], sorted and run through window
    /// functions.
    Window {
        stage: StageId,
        window: Window,
        input_schema: SchemaRef,
    },
    /// A recursive query, run to its fixpoint by one task. Both graphs end in [`Sink::Collect`].
    Recursive {
        recursive: Recursive,
        seed: Box<QueryGraph>,
        step: Box<QueryGraph>,
    },
    /// The last round's rows of the recursive query `id`.
    WorkTable {
        id: u32,
    },
    /// Hash partitions of rows (an earlier [`Sink::HashPartition`]), as they are: those of `shares`, by task, or
    /// equally many to each task if there are none.
    Exchange {
        stage: StageId,
        shares: Vec<Share>,
    },
    /// No rows: for stages whose sink takes what it needs from an earlier stage as a whole.
    Nothing,
}

/// An operator that hands rows on as they come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Transform {
    Filter {
        predicate: Expr,
    },
    Project {
        exprs: Vec<Expr>,
    },
    Expand {
        projections: Vec<Vec<Expr>>,
    },
    /// Probes the table that stage `build` ([`Sink::JoinBuild`]) made, or the partitions that it left.
    HashJoinProbe {
        build: StageId,
        join: HashJoin,
        build_schema: SchemaRef,
        /// If several tasks share hot partitions and the join answers for its build side.
        marks: Option<Marks>,
    },
    /// Pairs each row with all rows that stage `build` ([`Sink::Collect`]) kept.
    NestedLoopJoin {
        build: StageId,
        join: NestedLoopJoin,
        build_schema: SchemaRef,
    },
    /// Hands on no more than `rows` rows from all tasks of the stage together. Only below a [`Transform::Limit`].
    AtMost {
        rows: u64,
    },
    /// The range of the rows; in stages of one task only.
    Limit(Limit),
    Unnest(Unnest),
}

/// Where a pipeline's rows go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Sink {
    /// Kept as they are, for the caller, for a [`Source::Collected`] or as a scalar parameter.
    Collect,
    /// Partial groups, hash-partitioned by the group key into `partitions`.
    Aggregate { aggregate: Aggregate, partitions: u32 },
    /// Rows, hash-partitioned by keys into `partitions`; no key: all into partition 0.
    HashPartition { keys: Vec<Expr>, partitions: u32 },
    /// One sorted run a task, or its first rows.
    Sort(Sort),
    /// Rows of a join's build side, as they come; hash-partitioned by the build keys where memory is short.
    BuildRows { join: HashJoin },
    /// A join table that is shared with every probing task, made by one task of what stage `rows`
    /// ([`Sink::BuildRows`]) kept. If that does not fit, the build side stays partitioned, and
    /// [`split_at_join`] says how the probing stage goes on.
    JoinBuild { join: HashJoin, rows: StageId },
    /// The value of a scalar subquery: one column, at most one row.
    Scalar { parameter: u32 },
}
