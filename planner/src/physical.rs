//! The physical plan: which operators, in which order, on which columns. Plain data.
//!
//! A [`PhysicalPlan`] is a tree of [`Operator`]s; inputs are in `inputs`, so the operators' own structs
//! carry no children and the very same structs stand in the pipelines that `lower` cuts the tree into.
//!
//! What always holds:
//! - positions in expressions count the columns of the operator's input schema (for joins: the probe
//!   side's columns, then the build side's);
//! - `schema` holds logical types. The engine may carry a column in a narrower physical form, see
//!   `engine::batch`.

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::catalog::TableData;
use crate::expr::{Expr, Literal};

/// A query: its main plan, and the uncorrelated scalar subqueries whose values it takes as parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Query {
    pub root: PhysicalPlan,
    /// `(parameter, plan)`; each plan has one column and at most one row, else the query fails. A
    /// subquery may use the parameters of those before it.
    pub subqueries: Vec<(u32, PhysicalPlan)>,
    /// Plans used more than once (common table expressions), run once and read by [`Operator::Shared`].
    pub shared: Vec<(u32, PhysicalPlan)>,
}

impl Query {
    /// One more than the largest operator number.
    pub fn operator_count(&self) -> usize {
        fn largest(plan: &PhysicalPlan) -> u32 {
            plan.inputs.iter().map(largest).fold(plan.id, u32::max)
        }
        let others = self.subqueries.iter().chain(&self.shared).map(|(_, plan)| largest(plan));
        others.fold(largest(&self.root), u32::max) as usize + 1
    }
}

/// An operator with its inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhysicalPlan {
    pub operator: Operator,
    pub inputs: Vec<PhysicalPlan>,
    pub schema: SchemaRef,
    /// Number of the operator in its query, for EXPLAIN ANALYZE and metrics; unique within a query.
    pub id: u32,
    /// Rows the optimizer expects.
    pub rows_estimate: Option<u64>,
}

/// What an operator does. The number of inputs is in each variant's docs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Operator {
    /// Rows of a table. No input.
    Scan(Scan),
    /// Constant rows. No input.
    Values(Values),
    /// The rows of a plan in [`Query::shared`]. No input.
    Shared { id: u32 },
    /// Rows that satisfy a predicate. One input.
    Filter { predicate: Expr },
    /// Computed columns. One input.
    Project { exprs: Vec<Expr> },
    /// One output row per input row and projection: grouping sets. One input.
    Expand { projections: Vec<Vec<Expr>> },
    /// Groups and aggregates. One input.
    Aggregate(Aggregate),
    /// Equi-join through a hash or direct-address table. Inputs: probe side, build side.
    HashJoin(HashJoin),
    /// Join on any condition. Inputs: probe side, build side.
    NestedLoopJoin(NestedLoopJoin),
    /// Total order, or the first `fetch` rows of it. One input.
    Sort(Sort),
    /// A range of the rows. One input.
    Limit(Limit),
    /// All rows of all inputs, which have the same column types.
    Union,
    /// Window functions. One input.
    Window(Window),
    /// Lists into rows. One input.
    Unnest(Unnest),
    /// A recursive common table expression. Inputs: the static term, the recursive term.
    Recursive(Recursive),
    /// What the recursive term's last round produced. No input.
    WorkTable { id: u32 },
}

/// A table scan. `columns` are read, `filters` are applied, `output` goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scan {
    pub table: String,
    pub data: TableData,
    /// The table's whole schema: logical types.
    pub table_schema: SchemaRef,
    /// Positions in the table schema of the columns that the scan touches.
    pub columns: Vec<usize>,
    /// Conjuncts over positions in `columns`; only rows for which all are true go on.
    pub filters: Vec<Expr>,
    /// Positions in `columns` that form the output, in order.
    pub output: Vec<usize>,
    /// Filters that finished join builds publish: drop rows whose key cannot match.
    pub runtime_filters: Vec<RuntimeFilterUse>,
    /// The scan may stop when this many rows have gone on.
    pub limit: Option<u64>,
}

/// A scan's use of a filter that a join build publishes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuntimeFilterUse {
    /// The filter's number, unique in the query; see [`HashJoin::runtime_filters`].
    pub id: u32,
    /// Position in [`Scan::columns`] of the key.
    pub column: usize,
}

/// Constant rows: one inner vector a row, evaluated without input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Values {
    pub rows: Vec<Vec<Expr>>,
}

/// Grouping and aggregation. Output: the group columns, then one column per call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// Empty: one group, and one output row even without input rows.
    pub group_by: Vec<Expr>,
    pub calls: Vec<AggregateCall>,
}

impl Aggregate {
    /// Whether states of parts of a group can be merged into the group's, so that tasks may aggregate
    /// before rows are exchanged. If not, all rows of a group must meet first.
    pub fn is_mergeable(&self) -> bool {
        self.calls.iter().all(|call| !call.distinct && call.order_by.is_empty())
    }
}

/// One aggregate function call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AggregateCall {
    /// Name in the registry of aggregate functions, e.g. `sum`.
    pub function: String,
    pub args: Vec<Expr>,
    pub distinct: bool,
    pub filter: Option<Expr>,
    pub order_by: Vec<SortKey>,
    pub ignore_nulls: bool,
    /// Name and type of the result.
    pub output: arrow::datatypes::FieldRef,
}

/// An equi-join. Inputs: probe, build. Its full row is the probe side's columns, then the build side's
/// (both, for [`JoinKind::emits_both`]), or one side's only; `output` picks from that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HashJoin {
    pub kind: JoinKind,
    /// `(probe, build)` key pairs: the first over the probe's columns, the second over the build's own
    /// columns (counted from 0). Types of a pair are equal.
    pub keys: Vec<(Expr, Expr)>,
    /// Null keys match each other (IS NOT DISTINCT FROM, INTERSECT) instead of nothing.
    pub null_equal: bool,
    /// NOT IN: a null among the build keys means that no row passes, and a null probe key passes only
    /// if the build side is empty. Only with [`JoinKind::ProbeAnti`] (and mark: null instead of false).
    pub null_aware: bool,
    /// Further condition over probe columns, then build columns.
    pub residual: Option<Expr>,
    /// Positions in the full row that the join hands on, in order.
    pub output: Vec<usize>,
    /// `(filter number, key pair)`: filters that the finished build publishes.
    pub runtime_filters: Vec<(u32, usize)>,
}

/// Which rows a join hands on. "Outer" names the side whose unmatched rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JoinKind {
    /// Matching pairs.
    Inner,
    /// Matching pairs, and probe rows without a match with nulls for the build side.
    ProbeOuter,
    /// Matching pairs, and build rows without a match with nulls for the probe side.
    BuildOuter,
    /// Matching pairs, and the unmatched of both sides.
    Full,
    /// Probe rows that have a match, once each.
    ProbeSemi,
    /// Probe rows that have none.
    ProbeAnti,
    /// Build rows that have a match, once each.
    BuildSemi,
    /// Build rows that have none.
    BuildAnti,
    /// Every probe row, with one more Boolean column: has it a match.
    ProbeMark,
}

impl JoinKind {
    /// The full row holds columns of both sides.
    pub fn emits_both(self) -> bool {
        matches!(self, Self::Inner | Self::ProbeOuter | Self::BuildOuter | Self::Full)
    }

    /// Something is emitted from the build side once all probing is done.
    pub fn emits_build_at_end(self) -> bool {
        matches!(self, Self::BuildOuter | Self::Full | Self::BuildSemi | Self::BuildAnti)
    }
}

/// A join on any condition; `output` as in [`HashJoin`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NestedLoopJoin {
    pub kind: JoinKind,
    /// Over probe columns, then build columns; none: every pair matches.
    pub condition: Option<Expr>,
    pub output: Vec<usize>,
}

/// A sort key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SortKey {
    pub expr: Expr,
    pub descending: bool,
    pub nulls_first: bool,
}

/// A sort; with `fetch`, a top-k.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sort {
    pub keys: Vec<SortKey>,
    pub fetch: Option<u64>,
}

/// Skips `skip` rows, then hands on `fetch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    pub skip: u64,
    pub fetch: Option<u64>,
}

/// Window functions that share PARTITION BY and ORDER BY. Output: the input's columns, then one column
/// per call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Window {
    pub partition_by: Vec<Expr>,
    pub order_by: Vec<SortKey>,
    pub calls: Vec<WindowCall>,
}

/// One window function call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowCall {
    pub function: String,
    /// An aggregate function (`sum() OVER`) instead of a window function proper (`rank()`).
    pub aggregate: bool,
    pub args: Vec<Expr>,
    pub frame: WindowFrame,
    pub distinct: bool,
    pub filter: Option<Expr>,
    pub ignore_nulls: bool,
    pub output: arrow::datatypes::FieldRef,
}

/// A window frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowFrame {
    pub units: FrameUnits,
    pub start: FrameBound,
    pub end: FrameBound,
}

/// What a frame's offsets count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FrameUnits {
    Rows,
    Range,
    Groups,
}

/// One end of a frame. Offsets of ROWS and GROUPS are UInt64, those of RANGE have the type that is
/// added to the one ORDER BY key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FrameBound {
    UnboundedPreceding,
    Preceding(Literal),
    CurrentRow,
    Following(Literal),
    UnboundedFollowing,
}

/// Unnests list columns side by side (shorter lists padded with nulls), as `UNNEST` in SELECT does.
/// Output: the input's columns, each in its place, lists replaced by their elements, structs by their
/// fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unnest {
    /// Input columns to unnest from lists, with how many levels deep.
    pub lists: Vec<(usize, usize)>,
    /// For each output column: the input column that it comes from, and how.
    pub output: Vec<UnnestColumn>,
    /// Keep one row, with nulls, for rows whose lists are null or empty.
    pub preserve_nulls: bool,
}

/// Where an output column of [`Unnest`] comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum UnnestColumn {
    /// The input column, repeated.
    Repeated(usize),
    /// Elements of the list at a position of [`Unnest::lists`].
    Element(usize),
    /// A field of a struct column.
    Field { column: usize, field: usize },
}

/// A recursive common table expression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recursive {
    /// The number that [`Operator::WorkTable`] names.
    pub id: u32,
    /// UNION instead of UNION ALL: a row that was there before is dropped.
    pub distinct: bool,
}

impl Operator {
    /// The operator's name: the same in EXPLAIN, in metrics and in the dashboard.
    pub fn name(&self) -> &'static str {
        match self {
            Operator::Scan(_) => "Scan",
            Operator::Values(_) => "Values",
            Operator::Shared { .. } => "Shared",
            Operator::Filter { .. } => "Filter",
            Operator::Project { .. } => "Project",
            Operator::Expand { .. } => "Expand",
            Operator::Aggregate(_) => "Aggregate",
            Operator::HashJoin(_) => "HashJoin",
            Operator::NestedLoopJoin(_) => "NestedLoopJoin",
            Operator::Sort(Sort { fetch: Some(_), .. }) => "TopK",
            Operator::Sort(_) => "Sort",
            Operator::Limit(_) => "Limit",
            Operator::Union => "Union",
            Operator::Window(_) => "Window",
            Operator::Unnest(_) => "Unnest",
            Operator::Recursive(_) => "Recursive",
            Operator::WorkTable { .. } => "WorkTable",
        }
    }
}

impl Values {
    /// One row without columns: the input of `SELECT 1`.
    pub fn one_empty_row() -> Self {
        Values { rows: vec![vec![]] }
    }
}
