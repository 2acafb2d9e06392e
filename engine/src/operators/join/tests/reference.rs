//! What each join kind means, by looking at every pair.

use datafusion_common::ScalarValue;
use dovetail_planner::physical::JoinKind;

pub type Row = Vec<ScalarValue>;

/// The join of two tables; `compare` is the key comparison (unknown is none), `residual` the rest.
pub fn join(
    kind: JoinKind,
    null_aware: bool,
    probe: &[Row],
    build: &[Row],
    (probe_nulls, build_nulls): (&Row, &Row),
    compare: &dyn Fn(&Row, &Row) -> Option<bool>,
    residual: &dyn Fn(&Row, &Row) -> bool,
) -> Vec<Row> {
    use JoinKind::*;
    let both = |p: &Row, b: &Row| p.iter().chain(b).cloned().collect::<Row>();
    let mut out = vec![];
    let mut build_matched = vec![false; build.len()];
    for p in probe {
        let mut matched = false;
        let mut unknown = false;
        for (b, build_matched) in build.iter().zip(&mut build_matched) {
            let equal = compare(p, b);
            unknown |= equal.is_none();
            if equal == Some(true) && residual(p, b) {
                matched = true;
                *build_matched = true;
                if kind.emits_both() {
                    out.push(both(p, b));
                }
            }
        }
        unknown &= null_aware;
        match kind {
            ProbeOuter | Full if !matched => out.push(both(p, build_nulls)),
            ProbeSemi if matched => out.push(p.clone()),
            ProbeAnti if !matched && !unknown => out.push(p.clone()),
            ProbeMark => {
                let mark = if matched || !unknown { Some(matched) } else { None };
                out.push(p.iter().cloned().chain([ScalarValue::Boolean(mark)]).collect());
            }
            _ => {}
        }
    }
    for (b, matched) in build.iter().zip(build_matched) {
        match kind {
            BuildOuter | Full if !matched => out.push(both(probe_nulls, b)),
            BuildSemi if matched => out.push(b.clone()),
            BuildAnti if !matched => out.push(b.clone()),
            _ => {}
        }
    }
    out
}

/// SQL's equality: unknown if a side is null, -0 is 0, NaN is NaN.
pub fn equal(p: &ScalarValue, b: &ScalarValue) -> Option<bool> {
    match (p, b) {
        _ if p.is_null() || b.is_null() => None,
        (ScalarValue::Float64(Some(p)), ScalarValue::Float64(Some(b))) => {
            Some(p == b || p.is_nan() && b.is_nan())
        }
        _ => Some(p == b),
    }
}
