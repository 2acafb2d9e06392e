//! What must not be evaluated, and what must.

use super::*;
use BinaryOp::*;

fn divisors() -> Batch {
    batch(vec![
        Arc::new(Int64Array::from(vec![Some(10), Some(20), Some(30), None])) as ArrayRef,
        Arc::new(Int64Array::from(vec![Some(2), Some(0), None, Some(0)])) as ArrayRef,
    ])
}

fn a() -> Expr {
    col(0, DataType::Int64)
}

fn b() -> Expr {
    col(1, DataType::Int64)
}

#[test]
fn case_guards_its_branches() {
    let ratio = binary(Divide, a(), b());
    let guarded = case(vec![(binary(NotEq, b(), lit(0i64)), ratio.clone())], Some(lit(-1i64)));
    let expected = Int64Array::from(vec![Some(5), Some(-1), Some(-1), Some(-1)]);
    assert_eq!(check(&guarded, &divisors()).unwrap().as_primitive::<Int64Type>(), &expected);
    assert!(error(check(&ratio, &divisors())).contains("division by zero"));
    // A later branch is guarded by the conditions before it.
    let later = case(
        vec![(binary(Eq, b(), lit(0i64)), lit(0i64)), (binary(Gt, ratio.clone(), lit(3i64)), ratio.clone())],
        None,
    );
    let expected = Int64Array::from(vec![Some(5), Some(0), None, Some(0)]);
    assert_eq!(check(&later, &divisors()).unwrap().as_primitive::<Int64Type>(), &expected);
    // A branch that no row takes is not evaluated, even if it is constant.
    let never = case(vec![(binary(Gt, b(), lit(99i64)), binary(Divide, lit(1i64), lit(0i64)))], Some(b()));
    assert!(check(&never, &divisors()).is_ok());
}

#[test]
fn and_and_or_guard_what_follows() {
    let above = binary(Gt, binary(Divide, a(), b()), lit(1i64));
    let and_expected = BooleanArray::from(vec![Some(true), Some(false), None, Some(false)]);
    let safe = and(binary(NotEq, b(), lit(0i64)), above.clone());
    assert_eq!(check(&safe, &divisors()).unwrap().as_boolean(), &and_expected);
    // Also the other way round: what cannot fail goes first.
    let turned = and(above.clone(), binary(NotEq, b(), lit(0i64)));
    assert_eq!(check(&turned, &divisors()).unwrap().as_boolean(), &and_expected);
    let either = or(binary(Eq, b(), lit(0i64)), above.clone());
    let or_expected = BooleanArray::from(vec![Some(true), Some(true), None, Some(true)]);
    assert_eq!(check(&either, &divisors()).unwrap().as_boolean(), &or_expected);
    // Null does not guard: the result depends on the other side.
    let unknown = and(binary(Eq, a(), a()), binary(Gt, binary(Divide, lit(1i64), b()), lit(0i64)));
    assert!(error(check(&unknown, &divisors())).contains("division by zero"));
}

#[test]
fn predicates_guard_in_the_order_of_the_text() {
    // Both can fail; the first guards the second.
    let first = binary(Gt, binary(Multiply, b(), b()), lit(0i64));
    let second = binary(Gt, binary(Divide, a(), b()), lit(1i64));
    let predicate = Predicate::compile(&and(first.clone(), second.clone())).unwrap();
    for _ in 0..40 {
        assert_eq!(predicate.select(&divisors()).unwrap().unwrap().values(), &[0]);
    }
    assert!(Predicate::compile(&and(second, first)).unwrap().select(&divisors()).is_err());
}

#[test]
fn coalesce_is_lazy() {
    let ratio = binary(Divide, a(), b());
    let either = call("coalesce", vec![b(), ratio.clone(), lit(7i64)]);
    let expected = Int64Array::from(vec![2, 0, 7, 0]);
    assert_eq!(check(&either, &divisors()).unwrap().as_primitive::<Int64Type>(), &expected);
    let expected = Int64Array::from(vec![Some(2), Some(0), Some(30), Some(0)]);
    let nvl = call("nvl", vec![b(), a()]);
    assert_eq!(check(&nvl, &divisors()).unwrap().as_primitive::<Int64Type>(), &expected);
    let nvl2 = call("nvl2", vec![b(), a(), lit(1i64)]);
    let expected = Int64Array::from(vec![Some(10), Some(20), Some(1), None]);
    assert_eq!(check(&nvl2, &divisors()).unwrap().as_primitive::<Int64Type>(), &expected);
}

#[test]
fn constants_fail_only_when_a_row_reaches_them() {
    let broken = binary(Divide, lit(1i64), lit(0i64));
    assert!(error(check(&broken, &divisors())).contains("division by zero"));
    let empty = divisors().slice(0, 0);
    assert_eq!(evaluate(&broken, &empty).unwrap().len(), 0);
    assert_eq!(Predicate::compile(&binary(Eq, broken, lit(1i64))).unwrap().select(&empty).unwrap(), None);
}

#[test]
fn unused_dictionary_values_do_not_fail() {
    // The dictionary holds a value that is no number, but no row has it.
    let values: ArrayRef = Arc::new(StringViewArray::from(vec!["1", "oops", "3"]));
    let keys = UInt32Array::from(vec![Some(0), Some(2), None]);
    let column: ArrayRef = Arc::new(DictionaryArray::try_new(keys, values).unwrap());
    let number = cast_to(col(0, DataType::Utf8View), DataType::Int64);
    let input = batch(vec![column]);
    let expected = Int64Array::from(vec![Some(1), Some(3), None]);
    assert_eq!(evaluate(&number, &input).unwrap().as_primitive::<Int64Type>(), &expected);
    let above = binary(Gt, number, lit(1i64));
    assert_eq!(Predicate::compile(&above).unwrap().select(&input).unwrap().unwrap().values(), &[1]);
}

#[test]
fn constant_and_null_conditions() {
    let input = divisors();
    let select = |e: &Expr| Predicate::compile(e).unwrap().select(&input).unwrap().map(|r| r.len());
    assert_eq!(select(&lit(true)), None);
    assert_eq!(select(&lit(false)), Some(0));
    assert_eq!(select(&lit(ScalarValue::Boolean(None))), Some(0));
    assert_eq!(select(&lit(ScalarValue::Null)), Some(0));
    assert_eq!(select(&binary(Eq, a(), a())), Some(3));
    assert_eq!(select(&is(IsTest::NotNull, lit(1i64))), None);
    assert!(Predicate::compile(&a()).is_err());
    let unbound = Expr::Parameter { id: 3, data_type: DataType::Int64 };
    assert!(error(compile(&unbound).map(|_| -> ArrayRef { unreachable!() })).contains("parameter 3"));
}

#[test]
fn random_numbers_are_not_constants() {
    let input = divisors();
    let random = call("random", vec![]);
    let values = evaluate(&random, &input).unwrap();
    let values = values.as_primitive::<Float64Type>();
    assert!(values.iter().any(|v| v != Some(values.value(0))));
}
