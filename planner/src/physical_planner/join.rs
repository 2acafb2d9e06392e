//! Joins: which side is built, which kind that makes it, which columns go on.
//!
//! The smaller side is built, except where the kind of join leaves no choice. Without an equality between
//! the sides, rows are paired by a nested loop.

use datafusion_common::{DFSchema, JoinType, NullEquality};
use datafusion_expr::Operator as LogicalOperator;
use datafusion_expr::logical_plan::Join;
use datafusion_expr::type_coercion::binary::BinaryTypeCoercer;

use super::{Lowering, node};
use crate::error::{PlanError, Result};
use crate::expr::Expr;
use crate::physical::{HashJoin, JoinKind, NestedLoopJoin, Operator, PhysicalPlan};

impl Lowering<'_> {
    pub(super) fn join(&mut self, join: &Join) -> Result<PhysicalPlan> {
        let left = self.plan(&join.left)?;
        let right = self.plan(&join.right)?;
        let (left_len, right_len) = (left.schema.fields().len(), right.schema.fields().len());

        let mut keys = vec![];
        for (l, r) in &join.on {
            let l = self.expr(l, join.left.schema())?;
            let r = self.expr(r, join.right.schema())?;
            keys.push(same_type(l, r)?);
        }
        let both = join_schema(join)?;
        let residual = join.filter.as_ref().map(|f| self.expr(f, &both)).transpose()?;

        let hash = !keys.is_empty();
        if join.null_aware && !hash {
            return Err(PlanError::unsupported("NOT IN without an equality", "Use NOT EXISTS."));
        }
        let build_right = self.rows(&join.right) <= self.rows(&join.left);
        let (kind, left_probes) = choose(join, hash, build_right);

        // Positions over left then right columns, as positions over probe then build columns.
        let position = |i: usize| match (left_probes, i < left_len) {
            (true, _) => i,
            (false, true) => i + right_len,
            (false, false) => i - left_len,
        };
        let residual = residual.map(|mut e| {
            e.remap(&position);
            e
        });
        let keys = keys.into_iter().map(|(l, r)| if left_probes { (l, r) } else { (r, l) }).collect();
        let output = match kind {
            _ if kind.emits_both() => (0..left_len + right_len).map(position).collect(),
            JoinKind::ProbeMark if left_probes => (0..=left_len).collect(),
            JoinKind::ProbeMark => (0..=right_len).collect(),
            _ => (0..join.schema.fields().len()).collect(),
        };
        let operator = if hash {
            Operator::HashJoin(HashJoin {
                kind,
                keys,
                null_equal: join.null_equality == NullEquality::NullEqualsNull,
                null_aware: join.null_aware,
                residual,
                output,
                runtime_filters: vec![],
            })
        } else {
            Operator::NestedLoopJoin(NestedLoopJoin { kind, condition: residual, output })
        };
        let inputs = if left_probes { vec![left, right] } else { vec![right, left] };
        Ok(node(operator, inputs, join.schema.inner()))
    }
}

/// The kind of join seen from the probe side, and whether the left side probes; `build_right` says that the
/// right side is no larger, so that it is built if there is a choice.
fn choose(join: &Join, hash: bool, build_right: bool) -> (JoinKind, bool) {
    // A nested loop keeps to kinds that know a row's fate when they have seen it.
    let build_outer = hash && !join.null_aware;
    match join.join_type {
        JoinType::Inner => (JoinKind::Inner, build_right),
        JoinType::Full => (JoinKind::Full, build_right),
        JoinType::Left if build_right || !build_outer => (JoinKind::ProbeOuter, true),
        JoinType::Left => (JoinKind::BuildOuter, false),
        JoinType::Right if !build_right || !build_outer => (JoinKind::ProbeOuter, false),
        JoinType::Right => (JoinKind::BuildOuter, true),
        JoinType::LeftSemi if build_right || !build_outer => (JoinKind::ProbeSemi, true),
        JoinType::LeftSemi => (JoinKind::BuildSemi, false),
        JoinType::RightSemi if !build_right || !build_outer => (JoinKind::ProbeSemi, false),
        JoinType::RightSemi => (JoinKind::BuildSemi, true),
        JoinType::LeftAnti if build_right || !build_outer => (JoinKind::ProbeAnti, true),
        JoinType::LeftAnti => (JoinKind::BuildAnti, false),
        JoinType::RightAnti if !build_right || !build_outer => (JoinKind::ProbeAnti, false),
        JoinType::RightAnti => (JoinKind::BuildAnti, true),
        JoinType::LeftMark => (JoinKind::ProbeMark, true),
        JoinType::RightMark => (JoinKind::ProbeMark, false),
    }
}

/// The columns of both sides, whatever the join hands on.
fn join_schema(join: &Join) -> Result<DFSchema> {
    Ok(join.left.schema().join(join.right.schema())?)
}

/// Both keys in one type.
fn same_type(left: Expr, right: Expr) -> Result<(Expr, Expr)> {
    let (l, r) = (left.data_type(), right.data_type());
    if l == r {
        return Ok((left, right));
    }
    let (l_to, r_to) = BinaryTypeCoercer::new(&l, &LogicalOperator::Eq, &r).get_input_types()?;
    if l_to != r_to {
        return Err(PlanError::invalid(format!("a join of {l} with {r}: cast one side")));
    }
    let cast = |e: Expr, from, to| match from == to {
        true => e,
        false => Expr::Cast { expr: Box::new(e), to, safe: false },
    };
    Ok((cast(left, l, l_to), cast(right, r, r_to)))
}
