//! Random expressions over random batches, against DataFusion's physical expressions.
//!
//! DataFusion evaluates more eagerly than we do, so where it fails we may not; where it answers, we must
//! give the same answer, in every physical form, and as a condition.

use super::*;
use BinaryOp::*;
use datafusion_common::config::ConfigOptions;
use datafusion_expr::Operator;
use datafusion_physical_expr::expressions as df;
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use proptest::prelude::*;

const D: DataType = DataType::Decimal128(15, 2);
const S: DataType = DataType::Utf8View;
const I: DataType = DataType::Int64;

fn schema() -> Schema {
    let types = [I, I, D, D, S, S, DataType::Boolean, DataType::Date32];
    Schema::new(types.iter().map(|t| Field::new("c", t.clone(), true)).collect::<Vec<_>>())
}

fn input() -> impl Strategy<Value = Batch> {
    let row = (
        (prop::option::weighted(0.85, -5i64..6), prop::option::weighted(0.85, -1000i64..1000)),
        (prop::option::weighted(0.85, -500i128..500), prop::option::weighted(0.85, any::<i32>())),
        (prop::option::weighted(0.85, "[a-c]{0,3}"), prop::option::weighted(0.85, "[0-9]{1,3}|[ab]{13}")),
        (prop::option::weighted(0.85, any::<bool>()), prop::option::weighted(0.85, 0i32..20_000)),
    );
    prop::collection::vec(row, 1..90).prop_map(|rows| {
        let decimals = |v: Decimal128Array| Arc::new(v.with_precision_and_scale(15, 2).unwrap()) as ArrayRef;
        batch(vec![
            Arc::new(rows.iter().map(|r| r.0.0).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|r| r.0.1).collect::<Int64Array>()),
            decimals(rows.iter().map(|r| r.1.0).collect()),
            decimals(rows.iter().map(|r| r.1.1.map(i128::from)).collect()),
            Arc::new(rows.iter().map(|r| r.2.0.as_deref()).collect::<StringViewArray>()),
            Arc::new(rows.iter().map(|r| r.2.1.as_deref()).collect::<StringViewArray>()),
            Arc::new(rows.iter().map(|r| r.3.0).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|r| r.3.1).collect::<Date32Array>()),
        ])
    })
}

/// An expression of each kind that the others are made of.
#[derive(Debug, Clone)]
struct Family {
    int: Expr,
    decimal: Expr,
    text: Expr,
    truth: Expr,
}

fn leaf() -> impl Strategy<Value = Family> {
    let int = prop_oneof![
        Just(col(0, I)),
        Just(col(1, I)),
        (-3i64..4).prop_map(lit),
        Just(lit(ScalarValue::Int64(None))),
    ];
    let decimals =
        prop_oneof![Just(col(2, D)), Just(col(3, D)), (-300i128..300).prop_map(|v| decimal(v, 15, 2))];
    let texts = prop_oneof![Just(col(4, S)), Just(col(5, S)), "[a-c0-9]{0,2}".prop_map(|t| text(&t))];
    let truth = prop_oneof![
        Just(col(6, DataType::Boolean)),
        (0i32..20_000).prop_map(|d| binary(Lt, col(7, DataType::Date32), date(d))),
        "[a-c%_]{0,3}".prop_map(|p| like(col(4, S), &p)),
        prop::collection::vec(-5i64..6, 1..7)
            .prop_map(|l| in_list(col(0, I), l.into_iter().map(lit).collect())),
        prop::collection::vec("[a-c]{0,2}", 1..4)
            .prop_map(|l| in_list(col(4, S), l.iter().map(|t| text(t)).collect())),
    ];
    (int, decimals, texts, truth).prop_map(|(int, decimal, text, truth)| Family { int, decimal, text, truth })
}

fn family() -> impl Strategy<Value = Family> {
    leaf().prop_recursive(4, 24, 3, |inner| {
        (prop::collection::vec(inner, 3), any::<[u8; 4]>())
            .prop_map(|(f, kind)| combine(&f[0], &f[1], &f[2], kind))
    })
}

fn combine(a: &Family, b: &Family, c: &Family, kind: [u8; 4]) -> Family {
    let (a, b, c) = (a.clone(), b.clone(), c.clone());
    let not = |e: Expr| Expr::Not(Box::new(e));
    let arithmetic = [Add, Subtract, Multiply, Divide, Modulo];
    let comparisons = [Eq, NotEq, Lt, LtEq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom];
    let comparison = comparisons[kind[3] as usize / 8 % 8];
    let int = match kind[0] % 8 {
        n @ 0..5 => binary(arithmetic[n as usize], a.int.clone(), b.int.clone()),
        5 => case(
            vec![(a.truth.clone(), a.int.clone()), (b.truth.clone(), b.int.clone())],
            Some(c.int.clone()),
        ),
        6 => case(
            vec![(binary(NotEq, b.int.clone(), lit(0i64)), binary(Divide, a.int.clone(), b.int.clone()))],
            None,
        ),
        _ => cast_to(call("character_length", vec![a.text.clone()]), I),
    };
    let decimal = match kind[1] % 5 {
        n @ 0..3 => cast_to(binary(arithmetic[n as usize], a.decimal.clone(), b.decimal.clone()), D),
        3 => case(vec![(a.truth.clone(), b.decimal.clone())], Some(decimal(0, 15, 2))),
        _ => cast_to(a.int.clone(), D),
    };
    let text = match kind[2] % 5 {
        0 => binary(Concat, a.text.clone(), b.text.clone()),
        1 => case(vec![(a.truth.clone(), a.text.clone())], Some(b.text.clone())),
        2 => call("substr", vec![a.text.clone(), lit(1i64), lit(2i64)]),
        3 => cast_to(a.int.clone(), S),
        _ => call("upper", vec![a.text.clone()]),
    };
    let truth = match kind[3] % 8 {
        0 => and(a.truth, b.truth),
        1 => or(a.truth, or(b.truth, c.truth)),
        2 => not(and(a.truth, not(b.truth))),
        3 => binary(comparison, a.int, b.int),
        4 => binary(comparison, a.decimal, b.decimal),
        5 => binary(comparison, a.text, b.text),
        6 => is([IsTest::Null, IsTest::NotNull][kind[3] as usize / 8 % 2], a.truth),
        _ => in_list(a.int, vec![b.int, c.int]),
    };
    Family { int, decimal, text, truth }
}

/// The expression as DataFusion's.
fn translate(expr: &Expr, schema: &Schema) -> Arc<dyn PhysicalExpr> {
    let t = |e: &Expr| translate(e, schema);
    match expr {
        Expr::Column { index, .. } => Arc::new(df::Column::new("c", *index)),
        Expr::Literal(l) => df::lit(l.0.clone()),
        Expr::Not(e) => df::not(t(e)).unwrap(),
        Expr::Is { test: IsTest::Null, expr } => df::is_null(t(expr)).unwrap(),
        Expr::Is { expr, .. } => df::is_not_null(t(expr)).unwrap(),
        Expr::Cast { expr, to, .. } => df::cast(t(expr), schema, to.clone()).unwrap(),
        Expr::Case { branches, otherwise, .. } => {
            let branches = branches.iter().map(|(w, e)| (t(w), t(e))).collect();
            df::case(None, branches, otherwise.as_deref().map(t)).unwrap()
        }
        // DataFusion 55 takes a CASE in a list for a constant, hence the comparisons.
        Expr::InList { expr, list, negated: false } => list
            .iter()
            .map(|item| {
                Arc::new(df::BinaryExpr::new(t(expr), Operator::Eq, t(item))) as Arc<dyn PhysicalExpr>
            })
            .reduce(|l, r| Arc::new(df::BinaryExpr::new(l, Operator::Or, r)))
            .expect("a list has items"),
        Expr::Like { expr, pattern, negated, .. } => {
            df::like(*negated, false, t(expr), t(pattern), schema).unwrap()
        }
        Expr::Call { function, args, .. } => {
            let udf = crate::functions::scalar(function).unwrap();
            let args = args.iter().map(t).collect();
            let options = Arc::new(ConfigOptions::default());
            Arc::new(ScalarFunctionExpr::try_new(udf, args, schema, options).unwrap())
        }
        Expr::Binary { op, left, right, .. } => {
            let op = match op {
                Eq => Operator::Eq,
                NotEq => Operator::NotEq,
                Lt => Operator::Lt,
                LtEq => Operator::LtEq,
                Gt => Operator::Gt,
                GtEq => Operator::GtEq,
                IsDistinctFrom => Operator::IsDistinctFrom,
                IsNotDistinctFrom => Operator::IsNotDistinctFrom,
                And => Operator::And,
                Or => Operator::Or,
                Add => Operator::Plus,
                Subtract => Operator::Minus,
                Multiply => Operator::Multiply,
                Divide => Operator::Divide,
                Modulo => Operator::Modulo,
                Concat => Operator::StringConcat,
                other => panic!("{other:?} is not generated"),
            };
            Arc::new(df::BinaryExpr::new(t(left), op, t(right)).with_fail_on_overflow(true))
        }
        other => panic!("{other:?} is not generated"),
    }
}

fn compare_with_datafusion(expr: &Expr, input: &Batch) {
    let schema = Arc::new(schema());
    let record_batch = input.to_record_batch(&schema).unwrap();
    let theirs = translate(expr, &schema).evaluate(&record_batch).and_then(|v| v.into_array(input.rows));
    let Ok(theirs) = theirs else { return };
    for (i, form) in forms(input).into_iter().enumerate() {
        let ours = evaluate(expr, &form).unwrap_or_else(|e| panic!("form {i} of {expr:?}: {e}"));
        assert_eq!(&ours, &theirs, "form {i} of {expr:?}");
        if expr.data_type() == DataType::Boolean {
            check_selection(expr, &form, &Ok(ours));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_datafusion(family in family(), input in input()) {
        for expr in [&family.int, &family.decimal, &family.text, &family.truth] {
            compare_with_datafusion(expr, &input);
        }
    }
}
