//! What each operator does, nulls and overflow included.

use super::*;
use BinaryOp::*;

fn ints(values: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn bools(values: Vec<Option<bool>>) -> ArrayRef {
    Arc::new(BooleanArray::from(values))
}

const T: Option<bool> = Some(true);
const F: Option<bool> = Some(false);
const N: Option<bool> = None;

#[test]
fn logic_has_three_values() {
    let input = batch(vec![bools(vec![T, T, T, F, F, F, N, N, N]), bools(vec![T, F, N, T, F, N, T, F, N])]);
    let (a, b) = (col(0, DataType::Boolean), col(1, DataType::Boolean));
    let not = |e: Expr| Expr::Not(Box::new(e));
    for (expr, expected) in [
        (and(a.clone(), b.clone()), vec![T, F, N, F, F, F, N, F, N]),
        (or(a.clone(), b.clone()), vec![T, T, T, T, F, N, T, N, N]),
        (not(and(a.clone(), b.clone())), vec![F, T, N, T, T, T, N, T, N]),
        (not(or(a.clone(), b.clone())), vec![F, F, F, F, T, N, F, N, N]),
        (not(not(a.clone())), vec![T, T, T, F, F, F, N, N, N]),
        (is(IsTest::Null, a.clone()), vec![F, F, F, F, F, F, T, T, T]),
        (is(IsTest::NotNull, a.clone()), vec![T, T, T, T, T, T, F, F, F]),
        (is(IsTest::True, b.clone()), vec![T, F, F, T, F, F, T, F, F]),
        (is(IsTest::NotTrue, b.clone()), vec![F, T, T, F, T, T, F, T, T]),
        (is(IsTest::False, b.clone()), vec![F, T, F, F, T, F, F, T, F]),
        (is(IsTest::NotFalse, b.clone()), vec![T, F, T, T, F, T, T, F, T]),
        (is(IsTest::Unknown, and(a.clone(), b.clone())), vec![F, F, T, F, F, F, T, F, T]),
        (is(IsTest::NotUnknown, b.clone()), vec![T, T, F, T, T, F, T, T, F]),
        (and(a.clone(), lit(ScalarValue::Boolean(None))), vec![N, N, N, F, F, F, N, N, N]),
        (or(a.clone(), lit(true)), vec![T; 9]),
    ] {
        assert_eq!(&check(&expr, &input).unwrap(), &bools(expected), "{expr:?}");
    }
}

#[test]
fn long_chains_keep_their_operands() {
    let input = batch(vec![ints((0..200).map(Some).collect())]);
    let x = || col(0, DataType::Int64);
    let any = (0..150i64).map(|i| binary(Eq, x(), lit(i))).reduce(or).unwrap();
    let selected = Predicate::compile(&any).unwrap().select(&input).unwrap().unwrap();
    assert_eq!(selected.values().to_vec(), (0..150).collect::<Vec<u32>>());
    check(&any, &input).unwrap();
    let all = (150..200i64).map(|i| binary(NotEq, x(), lit(i))).reduce(|l, r| and(r, l)).unwrap();
    assert_eq!(Predicate::compile(&all).unwrap().select(&input).unwrap().unwrap().len(), 150);
    check(&all, &input).unwrap();
}

#[test]
fn comparisons() {
    let input = batch(vec![ints(vec![Some(1), Some(2), Some(3), None, Some(i64::MIN), Some(i64::MAX)])]);
    let x = || col(0, DataType::Int64);
    for (expr, expected) in [
        (binary(Eq, x(), lit(2i64)), vec![F, T, F, N, F, F]),
        (binary(NotEq, x(), lit(2i64)), vec![T, F, T, N, T, T]),
        (binary(Lt, x(), lit(2i64)), vec![T, F, F, N, T, F]),
        (binary(LtEq, x(), lit(2i64)), vec![T, T, F, N, T, F]),
        (binary(Gt, x(), lit(2i64)), vec![F, F, T, N, F, T]),
        (binary(GtEq, x(), lit(2i64)), vec![F, T, T, N, F, T]),
        (binary(Lt, lit(2i64), x()), vec![F, F, T, N, F, T]),
        (binary(GtEq, lit(2i64), x()), vec![T, T, F, N, T, F]),
        (binary(Lt, x(), lit(i64::MIN)), vec![F, F, F, N, F, F]),
        (binary(Gt, x(), lit(i64::MAX)), vec![F, F, F, N, F, F]),
        (binary(GtEq, x(), lit(i64::MIN)), vec![T, T, T, N, T, T]),
        (binary(Eq, x(), lit(ScalarValue::Int64(None))), vec![N; 6]),
        (binary(IsDistinctFrom, x(), lit(2i64)), vec![T, F, T, T, T, T]),
        (binary(IsNotDistinctFrom, x(), lit(ScalarValue::Int64(None))), vec![F, F, F, T, F, F]),
    ] {
        assert_eq!(&check(&expr, &input).unwrap(), &bools(expected), "{expr:?}");
    }
    // A comparison below a widening cast.
    let small = batch(vec![Arc::new(Int32Array::from(vec![Some(-1), Some(7), None])) as ArrayRef]);
    let wide = binary(Lt, cast_to(col(0, DataType::Int32), DataType::Int64), lit(1i64 << 40));
    assert_eq!(&check(&wide, &small).unwrap(), &bools(vec![T, T, N]));
}

#[test]
fn floats_compare_in_total_order_but_for_zero() {
    let x: ArrayRef =
        Arc::new(Float64Array::from(vec![Some(-0.0), Some(0.0), Some(f64::NAN), Some(1.0), None]));
    let input = batch(vec![x]);
    let x = || col(0, DataType::Float64);
    assert_eq!(&check(&binary(Eq, x(), lit(0.0)), &input).unwrap(), &bools(vec![T, T, F, F, N]));
    assert_eq!(&check(&binary(Eq, x(), lit(f64::NAN)), &input).unwrap(), &bools(vec![F, F, T, F, N]));
    assert_eq!(&check(&binary(Gt, x(), lit(0.5)), &input).unwrap(), &bools(vec![F, F, T, T, N]));
    assert_eq!(
        &check(&in_list(x(), vec![lit(0.0), lit(f64::NAN)]), &input).unwrap(),
        &bools(vec![T, T, T, F, N])
    );
}

#[test]
fn nested_values_compare() {
    let list = |v: Vec<Option<Vec<Option<i32>>>>| {
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(v)) as ArrayRef
    };
    let l = list(vec![Some(vec![Some(1), None]), Some(vec![Some(1)]), None]);
    let r = list(vec![Some(vec![Some(1), None]), Some(vec![Some(2)]), None]);
    let t = l.data_type().clone();
    let input = batch(vec![l, r]);
    let run = |op| check(&binary(op, col(0, t.clone()), col(1, t.clone())), &input).unwrap();
    assert_eq!(&run(Eq), &bools(vec![T, F, N]));
    assert_eq!(&run(Lt), &bools(vec![F, T, N]));
    assert_eq!(&run(IsNotDistinctFrom), &bools(vec![T, F, T]));
}

#[test]
fn integers_overflow_loudly() {
    let input = batch(vec![ints(vec![Some(1), None, Some(i64::MAX)]), ints(vec![Some(2), Some(0), Some(1)])]);
    let (a, b) = (|| col(0, DataType::Int64), || col(1, DataType::Int64));
    for op in [Add, Multiply] {
        let doubled = binary(op, a(), lit(2i64));
        assert!(error(check(&doubled, &input)).contains("overflow"), "{op:?}");
        // Only the rows that are evaluated count.
        let first_two = input.slice(0, 2);
        assert!(check(&doubled, &first_two).is_ok());
    }
    assert_eq!(
        &check(&binary(Subtract, a(), b()), &input).unwrap(),
        &ints(vec![Some(-1), None, Some(i64::MAX - 1)])
    );
    assert!(error(check(&Expr::Negate(Box::new(lit(i64::MIN))), &input)).contains("overflow"));
    assert!(
        error(check(&binary(Divide, a(), binary(Subtract, b(), b())), &input)).contains("division by zero")
    );
    assert_eq!(&check(&binary(Modulo, a(), lit(2i64)), &input).unwrap(), &ints(vec![Some(1), None, Some(1)]));
    // Division by zero on a null row is null.
    let ratio = binary(Divide, a(), b());
    assert_eq!(&check(&ratio, &input.slice(0, 2)).unwrap(), &ints(vec![Some(0), None]));
    let float = binary(Divide, lit(1.0), lit(0.0));
    assert_eq!(evaluate(&float, &input).unwrap().as_primitive::<Float64Type>().value(0), f64::INFINITY);
}

#[test]
fn dates_and_times() {
    let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(10957), None, Some(0)]));
    let input = batch(vec![days]);
    let d = || col(0, DataType::Date32);
    let month = ScalarValue::new_interval_mdn(1, 0, 0);
    let next = check(&binary(Add, d(), lit(month.clone())), &input).unwrap();
    assert_eq!(next.as_primitive::<Date32Type>(), &Date32Array::from(vec![Some(10988), None, Some(31)]));
    let previous = check(&binary(Subtract, d(), lit(month.clone())), &input).unwrap();
    assert_eq!(previous.as_primitive::<Date32Type>().value(0), 10926);
    let flipped = check(&binary(Add, lit(month), d()), &input).unwrap();
    assert_eq!(flipped.as_primitive::<Date32Type>().value(0), 10988);
    assert_eq!(
        &check(&binary(Subtract, d(), date(1)), &input).unwrap(),
        &ints(vec![Some(10956), None, Some(-1)])
    );

    let clock: ArrayRef = Arc::new(Time64MicrosecondArray::from(vec![Some(84_600_000_000), None]));
    let input = batch(vec![clock]);
    let two_hours = ScalarValue::new_interval_mdn(0, 3, 7_200_000_000_000);
    let t = || col(0, DataType::Time64(TimeUnit::Microsecond));
    let later = check(&binary(Add, t(), lit(two_hours.clone())), &input).unwrap();
    assert_eq!(later.as_primitive::<Time64MicrosecondType>().value(0), 5_400_000_000);
    let earlier = check(&binary(Subtract, t(), lit(two_hours)), &input).unwrap();
    assert_eq!(earlier.as_primitive::<Time64MicrosecondType>().value(0), 77_400_000_000);

    let stamps: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, 86_400_000_000]));
    let input = batch(vec![stamps]);
    let t = DataType::Timestamp(TimeUnit::Microsecond, None);
    let gap = check(&binary(Subtract, col(0, t.clone()), col(0, t)), &input).unwrap();
    assert_eq!(gap.data_type(), &DataType::Duration(TimeUnit::Microsecond));
}

#[test]
fn bits_and_strings() {
    let input = batch(vec![
        ints(vec![Some(0b1100), None, Some(1)]),
        Arc::new(StringViewArray::from(vec![Some("ab"), None, Some("a string beyond twelve bytes")])),
    ]);
    let x = || col(0, DataType::Int64);
    let s = || col(1, DataType::Utf8View);
    for (op, right, expected) in [
        (BitAnd, 0b0110i64, vec![Some(0b0100), None, Some(0)]),
        (BitOr, 0b0110, vec![Some(0b1110), None, Some(7)]),
        (BitXor, 0b0110, vec![Some(0b1010), None, Some(7)]),
        (ShiftLeft, 2, vec![Some(0b110000), None, Some(4)]),
        (ShiftRight, 2, vec![Some(0b11), None, Some(0)]),
    ] {
        assert_eq!(&check(&binary(op, x(), lit(right)), &input).unwrap(), &ints(expected), "{op:?}");
    }
    let both = check(&binary(Concat, s(), text("!")), &input).unwrap();
    let expected = StringViewArray::from(vec![Some("ab!"), None, Some("a string beyond twelve bytes!")]);
    assert_eq!(both.as_string_view(), &expected);
    for (op, pattern, expected) in [
        (RegexMatch, "^A", vec![F, N, F]),
        (RegexIMatch, "^A", vec![T, N, T]),
        (RegexNotMatch, "b$", vec![F, N, T]),
        (RegexNotIMatch, "B", vec![F, N, F]),
    ] {
        let constant = binary(op, s(), text(pattern));
        assert_eq!(&check(&constant, &input).unwrap(), &bools(expected.clone()), "{op:?}");
        let by_row =
            binary(op, s(), case(vec![(is(IsTest::NotNull, x()), text(pattern))], Some(text(pattern))));
        assert_eq!(&check(&by_row, &input).unwrap(), &bools(expected), "{op:?} by row");
    }
    assert!(check(&binary(RegexMatch, s(), text("(")), &input).is_err());
}

#[test]
fn casts() {
    let input = batch(vec![Arc::new(StringViewArray::from(vec![Some("12"), None, Some("x1")])) as ArrayRef]);
    let s = || col(0, DataType::Utf8View);
    let message = error(check(&cast_to(s(), DataType::Int64), &input));
    assert!(message.contains("x1"), "{message}");
    let message = error(check(&cast_to(s(), DataType::Date32), &input));
    assert!(message.contains("12") || message.contains("x1"), "{message}");
    let safe = Expr::Cast { expr: Box::new(s()), to: DataType::Int64, safe: true };
    assert_eq!(&check(&safe, &input).unwrap(), &ints(vec![Some(12), None, None]));

    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(-7), None, Some(i32::MAX)]));
    let input = batch(vec![numbers]);
    let x = || col(0, DataType::Int32);
    let texts = check(&cast_to(x(), DataType::Utf8View), &input).unwrap();
    assert_eq!(texts.as_string_view(), &StringViewArray::from(vec![Some("-7"), None, Some("2147483647")]));
    let wide = check(&cast_to(x(), DataType::Decimal128(22, 2)), &input).unwrap();
    assert_eq!(wide.as_primitive::<Decimal128Type>().values()[..1], [-700]);
    assert!(check(&cast_to(x(), DataType::Decimal128(5, 2)), &input).is_err());
    assert!(check(&cast_to(x(), DataType::Int8), &input).is_err());

    let decimals: ArrayRef = Arc::new(
        Decimal128Array::from(vec![Some(12345), None, Some(-995)]).with_precision_and_scale(15, 2).unwrap(),
    );
    let input = batch(vec![decimals]);
    let d = || col(0, DataType::Decimal128(15, 2));
    for (to, expected) in [
        (DataType::Decimal128(22, 2), vec![Some(12345), None, Some(-995)]),
        (DataType::Decimal128(22, 4), vec![Some(1234500), None, Some(-99500)]),
        (DataType::Decimal128(38, 20), vec![Some(12345 * 10i128.pow(18)), None, Some(-995 * 10i128.pow(18))]),
        (DataType::Decimal128(10, 1), vec![Some(1235), None, Some(-100)]),
        (DataType::Decimal128(5, 2), vec![Some(12345), None, Some(-995)]),
    ] {
        let array = check(&cast_to(d(), to.clone()), &input).unwrap();
        assert_eq!(array.as_primitive::<Decimal128Type>().iter().collect::<Vec<_>>(), expected, "{to}");
    }
    assert!(check(&cast_to(d(), DataType::Decimal128(4, 2)), &input).is_err());
    let float = check(&cast_to(d(), DataType::Float64), &input).unwrap();
    assert_eq!(
        float.as_primitive::<Float64Type>(),
        &Float64Array::from(vec![Some(123.45), None, Some(-9.95)])
    );
    let texts = check(&cast_to(d(), DataType::Utf8View), &input).unwrap();
    assert_eq!(texts.as_string_view().value(2), "-9.95");
}

#[test]
fn lists() {
    let input = batch(vec![
        ints(vec![Some(1), None, Some(5), Some(i64::MIN)]),
        Arc::new(StringViewArray::from(vec![
            Some("a"),
            None,
            Some("a string beyond twelve bytes"),
            Some(""),
        ])),
        Arc::new(
            Decimal128Array::from(vec![Some(100), None, Some(550), Some(0)])
                .with_precision_and_scale(15, 2)
                .unwrap(),
        ),
        Arc::new(Date32Array::from(vec![Some(1), None, Some(5), Some(-1)])),
    ]);
    let x = || col(0, DataType::Int64);
    let null = || lit(ScalarValue::Int64(None));
    let not_in = |expr: Expr, list| Expr::InList { expr: Box::new(expr), list, negated: true };
    let far = |n: i64| (0..n).map(|i| lit(i * 1_000_003 + 5)).collect::<Vec<_>>();
    let near = (3..90i64).map(lit).collect::<Vec<_>>();
    for (expr, expected) in [
        (in_list(x(), vec![lit(1i64), lit(5i64)]), vec![T, N, T, F]),
        (not_in(x(), vec![lit(1i64), lit(5i64)]), vec![F, N, F, T]),
        (in_list(x(), vec![lit(1i64), null()]), vec![T, N, N, N]),
        (not_in(x(), vec![lit(1i64), null()]), vec![F, N, N, N]),
        (in_list(x(), vec![null()]), vec![N, N, N, N]),
        (in_list(x(), far(50)), vec![F, N, T, F]),
        (in_list(x(), near.clone()), vec![F, N, T, F]),
        (not_in(x(), near), vec![T, N, F, T]),
        (in_list(x(), vec![lit(i64::MAX), lit(i64::MIN), lit(0i64), lit(2i64), lit(3i64)]), vec![F, N, F, T]),
        (in_list(x(), vec![lit(7i64), binary(Add, lit(0i64), x())]), vec![T, N, T, T]),
        (
            in_list(col(1, DataType::Utf8View), vec![text("a string beyond twelve bytes"), text("")]),
            vec![F, N, T, T],
        ),
        (
            in_list(col(2, DataType::Decimal128(15, 2)), vec![decimal(100, 15, 2), decimal(0, 15, 2)]),
            vec![T, N, F, T],
        ),
        (in_list(col(3, DataType::Date32), vec![date(5), date(-1)]), vec![F, N, T, T]),
    ] {
        assert_eq!(&check(&expr, &input).unwrap(), &bools(expected), "{expr:?}");
    }
}

#[test]
fn patterns() {
    let values = vec![Some("PROMO BRUSHED TIN"), None, Some(""), Some("a_b%c"), Some("100%"), Some("promo")];
    let input = batch(vec![Arc::new(StringViewArray::from(values)) as ArrayRef]);
    let s = || col(0, DataType::Utf8View);
    let with = |pattern: &str, case_insensitive, escape| Expr::Like {
        expr: Box::new(s()),
        pattern: Box::new(text(pattern)),
        negated: false,
        case_insensitive,
        escape,
    };
    for (expr, expected) in [
        (like(s(), "PROMO%"), vec![T, N, F, F, F, F]),
        (like(s(), "%TIN"), vec![T, N, F, F, F, F]),
        (like(s(), "%BRUSH%"), vec![T, N, F, F, F, F]),
        (like(s(), "%P%O%TIN%"), vec![T, N, F, F, F, F]),
        (like(s(), "%"), vec![T, N, T, T, T, T]),
        (like(s(), ""), vec![F, N, T, F, F, F]),
        (like(s(), "____"), vec![F, N, F, F, T, F]),
        (like(s(), "a\\_b\\%c"), vec![F, N, F, T, F, F]),
        (with("%!%", false, Some('!')), vec![F, N, F, F, T, F]),
        (with("%!%", false, None), vec![F; 1].into_iter().chain([N, F, F, F, F]).collect()),
        (with("PROMO%", true, None), vec![T, N, F, F, F, T]),
        (with("%!%%", true, Some('!')), vec![F, N, F, T, T, F]),
    ] {
        assert_eq!(&check(&expr, &input).unwrap(), &bools(expected), "{expr:?}");
    }
    // Patterns by row, each with its own escape.
    let pattern = case(vec![(is(IsTest::NotNull, s()), text("%!%"))], None);
    let by_row = Expr::Like {
        expr: Box::new(s()),
        pattern: Box::new(pattern),
        negated: true,
        case_insensitive: false,
        escape: Some('!'),
    };
    assert_eq!(&check(&by_row, &input).unwrap(), &bools(vec![T, N, T, T, F, T]));
}
