//! The fast paths against Arrow's plain kernels, on random batches in every physical form.

use super::*;
use BinaryOp::*;
use arrow::compute::kernels::{boolean, cmp, numeric};
use proptest::prelude::*;

const D: DataType = DataType::Decimal128(15, 2);

fn decimals(values: &[Option<i64>]) -> ArrayRef {
    let array: Decimal128Array = values.iter().map(|v| v.map(i128::from)).collect();
    Arc::new(array.with_precision_and_scale(15, 2).unwrap())
}

fn column() -> impl Strategy<Value = Vec<Option<i64>>> {
    let small = prop::collection::vec(prop::option::weighted(0.9, -1000i64..1000), 1..200);
    let full = prop::collection::vec(
        prop::option::weighted(0.9, -999_999_999_999_999i64..999_999_999_999_999),
        1..200,
    );
    prop_oneof![small.clone(), small, full]
}

fn comparison() -> impl Strategy<Value = BinaryOp> {
    prop::sample::select(vec![Eq, NotEq, Lt, LtEq, Gt, GtEq])
}

fn arrow_compare(op: BinaryOp, l: &dyn Datum, r: &dyn Datum) -> BooleanArray {
    match op {
        Eq => cmp::eq(l, r),
        NotEq => cmp::neq(l, r),
        Lt => cmp::lt(l, r),
        LtEq => cmp::lt_eq(l, r),
        Gt => cmp::gt(l, r),
        _ => cmp::gt_eq(l, r),
    }
    .unwrap()
}

proptest! {
    #[test]
    fn ranges(values in column(), op in comparison(), c in -1000i64..1000, other in comparison(), d in -1000i64..1000) {
        let array = decimals(&values);
        let input = batch(vec![array.clone()]);
        let one = binary(op, col(0, D), decimal(c as i128, 15, 2));
        let two = binary(other, decimal(d as i128, 15, 2), col(0, D));
        let scalar = |v: i64| Scalar::new(decimals(&[Some(v)]));
        let first = arrow_compare(op, &array, &scalar(c));
        let second = arrow_compare(other, &scalar(d), &array);
        let found = check(&one, &input).unwrap();
        prop_assert_eq!(found.as_boolean(), &first);
        let both = boolean::and_kleene(&first, &second).unwrap();
        let found = check(&and(one.clone(), two.clone()), &input).unwrap();
        prop_assert_eq!(found.as_boolean(), &both);
        let either = boolean::or_kleene(&first, &second).unwrap();
        let not = Expr::Not(Box::new(or(one, two)));
        let found = check(&not, &input).unwrap();
        prop_assert_eq!(found.as_boolean(), &boolean::not(&either).unwrap());
    }

    #[test]
    fn integer_ranges(values in prop::collection::vec(prop::option::of(any::<i32>()), 1..150), op in comparison(), c in any::<i32>()) {
        let array: ArrayRef = Arc::new(Int32Array::from(values));
        let input = batch(vec![array.clone()]);
        let found = check(&binary(op, col(0, DataType::Int32), lit(c)), &input).unwrap();
        prop_assert_eq!(found.as_boolean(), &arrow_compare(op, &array, &Int32Array::new_scalar(c)));
    }

    #[test]
    fn decimal_arithmetic(l in column(), r in column(), c in -1000i128..1000) {
        let rows = l.len().min(r.len());
        let (l, r) = (decimals(&l[..rows]), decimals(&r[..rows]));
        let input = batch(vec![l.clone(), r.clone()]);
        let constant = Decimal128Array::from(vec![c]).with_precision_and_scale(20, 0).unwrap();
        let constant = Scalar::new(Arc::new(constant) as ArrayRef);
        for (op, kernel) in [
            (Add, numeric::add as fn(&dyn Datum, &dyn Datum) -> _),
            (Subtract, numeric::sub),
            (Multiply, numeric::mul),
        ] {
            let found = check(&binary(op, col(0, D), col(1, D)), &input).unwrap();
            prop_assert_eq!(&found, &kernel(&l, &r).unwrap());
            let found = check(&binary(op, decimal(c, 20, 0), col(1, D)), &input).unwrap();
            prop_assert_eq!(&found, &kernel(&constant, &r).unwrap());
            let nested = binary(Multiply, col(0, D), binary(op, decimal(c, 20, 0), col(1, D)));
            let found = check(&nested, &input).unwrap();
            prop_assert_eq!(&found, &numeric::mul(&l, &kernel(&constant, &r).unwrap()).unwrap());
        }
        for (op, kernel) in [(Divide, numeric::div as fn(&dyn Datum, &dyn Datum) -> _), (Modulo, numeric::rem)] {
            let found = check(&binary(op, col(0, D), col(1, D)), &input);
            match kernel(&l, &r) {
                Ok(expected) => prop_assert_eq!(&found.unwrap(), &expected),
                Err(e) => prop_assert!(error(found).contains("division by zero"), "{}", e),
            }
        }
    }

    #[test]
    fn integer_arithmetic(l in prop::collection::vec(prop::option::of(any::<i64>()), 1..40), c in any::<i64>(), shift in 0u32..62) {
        let l: ArrayRef = Arc::new(l.iter().map(|v| v.map(|v| v >> shift)).collect::<Int64Array>());
        let c = c >> shift;
        let input = batch(vec![l.clone()]);
        for (op, kernel) in [
            (Add, numeric::add as fn(&dyn Datum, &dyn Datum) -> _),
            (Subtract, numeric::sub),
            (Multiply, numeric::mul),
        ] {
            let found = check(&binary(op, col(0, DataType::Int64), lit(c)), &input);
            match kernel(&l, &Int64Array::new_scalar(c)) {
                Ok(expected) => prop_assert_eq!(&found.unwrap(), &expected),
                Err(_) => prop_assert!(error(found).contains("overflow")),
            }
        }
    }

    #[test]
    fn strings(values in prop::collection::vec(prop::option::weighted(0.9, "[a-c]{0,3}|[a-c]{12,14}"), 1..100), c in "[a-c]{0,2}", op in comparison()) {
        let array: ArrayRef = Arc::new(StringViewArray::from_iter(values));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..array.len() as i64));
        let input = batch(vec![array.clone(), numbers]);
        let s = || col(0, DataType::Utf8View);
        let scalar = StringViewArray::new_scalar(&c);
        let compared = arrow_compare(op, &array, &scalar);
        let one = binary(op, s(), text(&c));
        let found = check(&one, &input).unwrap();
        prop_assert_eq!(found.as_boolean(), &compared);
        let pattern = format!("%{c}%");
        let liked = arrow::compute::like(&array, &StringViewArray::new_scalar(&pattern)).unwrap();
        let found = check(&like(s(), &pattern), &input).unwrap();
        prop_assert_eq!(found.as_boolean(), &liked);
        // With another column, the string part alone is lifted.
        let mixed = and(or(one, like(s(), &pattern)), binary(Lt, col(1, DataType::Int64), lit(50i64)));
        let below = cmp::lt(input.columns[1].base(), &Int64Array::new_scalar(50)).unwrap();
        let expected = boolean::and_kleene(&boolean::or_kleene(&compared, &liked).unwrap(), &below).unwrap();
        let found = check(&mixed, &input).unwrap();
        prop_assert_eq!(found.as_boolean(), &expected);
    }
}

/// Values that no longer fit in 64 bits, and then not in the precision either.
#[test]
fn decimals_widen_and_then_overflow() {
    let big = 999_999_999_999_999i64;
    let input = batch(vec![decimals(&[Some(big), None, Some(-big)])]);
    let square = binary(Multiply, col(0, D), col(0, D));
    let found = check(&square, &input).unwrap();
    assert_eq!(found.as_primitive::<Decimal128Type>().value(0), big as i128 * big as i128);
    let fourth = binary(Multiply, square.clone(), square);
    let message = error(check(&fourth, &input));
    assert!(message.contains("overflow") && message.contains("DECIMAL(38, 8)"), "{message}");
    // Beyond the precision, though not beyond 128 bits.
    let max = decimal(10i128.pow(38) - 1, 38, 0);
    let message = error(check(&binary(Add, max, decimal(1, 38, 0)), &input));
    assert!(message.contains("overflow"), "{message}");
}

#[test]
fn products_of_narrow_decimals_stay_narrow() {
    let prices = decimals(&[Some(10_494_950), None, Some(90_000)]);
    let discounts = decimals(&[Some(7), Some(0), Some(10)]);
    let input = &forms(&batch(vec![prices, discounts]))[1];
    let factor = binary(Subtract, decimal(1, 20, 0), col(1, D));
    let product = binary(Multiply, col(0, D), factor);
    assert_eq!(product.data_type(), DataType::Decimal128(38, 4));
    let array = compile(&product).unwrap().evaluate_array(input).unwrap();
    assert_eq!(array.data_type(), &DataType::Decimal64(18, 4));
    let charge = binary(Multiply, product, binary(Add, decimal(1, 20, 0), col(1, D)));
    let array = compile(&charge).unwrap().evaluate_array(input).unwrap();
    assert_eq!(array.data_type(), &DataType::Decimal64(18, 6));
    assert_eq!(array.as_primitive::<Decimal64Type>().value(2), 90_000 * 90 * 110);
    assert!(array.is_null(1));
}

#[test]
fn division_truncates_and_uses_more_bits_if_it_must() {
    let input = batch(vec![decimals(&[Some(200), Some(-200)])]);
    let third = binary(Divide, col(0, D), decimal(300, 15, 2));
    let found = check(&third, &input).unwrap();
    assert_eq!(found.data_type(), &DataType::Decimal128(21, 6));
    assert_eq!(found.as_primitive::<Decimal128Type>().values()[..], [666_666, -666_666]);
    // The numerator times ten to the 24th needs more than 128 bits.
    let large = decimal(10i128.pow(30), 38, 10);
    let ratio = binary(Divide, large, decimal(4 * 10i128.pow(20), 38, 20));
    let found = check(&ratio, &input).unwrap();
    assert_eq!(found.as_primitive::<Decimal128Type>().value(0), 25 * 10i128.pow(32));
}

#[test]
fn unsigned_integers_keep_their_upper_half() {
    let array: ArrayRef = Arc::new(UInt64Array::from(vec![Some(u64::MAX), Some(0), None, Some(1 << 63)]));
    let input = batch(vec![array]);
    let x = || col(0, DataType::UInt64);
    let found = check(&binary(Gt, x(), lit(1u64 << 62)), &input).unwrap();
    assert_eq!(found.as_boolean(), &BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]));
    let found = check(&in_list(x(), vec![lit(u64::MAX), lit(5u64)]), &input).unwrap();
    assert_eq!(found.as_boolean(), &BooleanArray::from(vec![Some(true), Some(false), None, Some(false)]));
}
