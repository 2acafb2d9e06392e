//! The shapes of TPC-H's expressions, against values worked out by hand.

use super::*;
use BinaryOp::*;

const D: DataType = DataType::Decimal128(15, 2);

/// quantity, extendedprice, discount, tax, shipdate, returnflag, shipmode, brand, container, size, comment
fn lineitem() -> Batch {
    let decimals = |v: Vec<i128>| {
        Arc::new(Decimal128Array::from(v).with_precision_and_scale(15, 2).unwrap()) as ArrayRef
    };
    let texts = |v: Vec<&str>| Arc::new(StringViewArray::from(v)) as ArrayRef;
    batch(vec![
        decimals(vec![1700, 3600, 800, 2800]),
        decimals(vec![2_116_823, 4_598_316, 1_330_960, 2_895_564]),
        decimals(vec![4, 9, 6, 7]),
        decimals(vec![2, 6, 2, 6]),
        Arc::new(Date32Array::from(vec![9568, 8766, 9000, 9130])),
        texts(vec!["N", "R", "A", "N"]),
        texts(vec!["TRUCK", "MAIL", "AIR", "AIR REG"]),
        texts(vec!["Brand#12", "Brand#23", "Brand#12", "Brand#34"]),
        texts(vec!["SM CASE", "MED BAG", "SM PKG", "LG BOX"]),
        Arc::new(Int32Array::from(vec![3, 8, 40, 15])),
        texts(vec![
            "special packages requests",
            "requests special",
            "PROMO",
            "the special deposit requests wake",
        ]),
    ])
}

fn text_column(i: usize) -> Expr {
    col(i, DataType::Utf8View)
}

fn between(e: Expr, low: Expr, high: Expr) -> Expr {
    and(binary(GtEq, e.clone(), low), binary(LtEq, e, high))
}

fn revenue() -> Expr {
    binary(Multiply, col(1, D), binary(Subtract, decimal(1, 20, 0), col(2, D)))
}

fn selected(predicate: &Expr) -> Vec<usize> {
    let values = check(predicate, &lineitem()).unwrap();
    (0..4).filter(|&i| values.is_valid(i) && values.as_boolean().value(i)).collect()
}

#[test]
fn q1_q3_revenue_and_charge() {
    let found = check(&revenue(), &lineitem()).unwrap();
    let expected = [2_116_823 * 96, 4_598_316 * 91, 1_330_960 * 94, 2_895_564 * 93];
    assert_eq!(found.as_primitive::<Decimal128Type>().values()[..], expected);
    let charge = binary(Multiply, revenue(), binary(Add, decimal(1, 20, 0), col(3, D)));
    let found = check(&charge, &lineitem()).unwrap();
    assert_eq!(found.data_type(), &DataType::Decimal128(38, 6));
    assert_eq!(found.as_primitive::<Decimal128Type>().value(1), 4_598_316 * 91 * 106);
    let shipped = binary(LtEq, col(4, DataType::Date32), date(9130));
    assert_eq!(selected(&shipped), [1, 2, 3]);
}

#[test]
fn q6_ranges() {
    let shipped = and(
        binary(GtEq, col(4, DataType::Date32), date(8766)),
        binary(Lt, col(4, DataType::Date32), date(9131)),
    );
    let discount = between(col(2, D), decimal(5, 15, 2), decimal(7, 15, 2));
    let quantity = binary(Lt, cast_to(col(0, D), DataType::Decimal128(22, 2)), decimal(2400, 22, 2));
    assert_eq!(selected(&and(and(shipped, discount), quantity)), [2]);
}

#[test]
fn q8_q12_q14_cases() {
    let share = case(vec![(like(text_column(10), "PROMO%"), revenue())], Some(decimal(0, 38, 4)));
    let found = check(&share, &lineitem()).unwrap();
    assert_eq!(found.as_primitive::<Decimal128Type>().values()[..], [0, 0, 1_330_960 * 94, 0]);
    let urgent = or(binary(Eq, text_column(6), text("MAIL")), binary(Eq, text_column(6), text("AIR")));
    let high = case(vec![(urgent.clone(), lit(1i64))], Some(lit(0i64)));
    assert_eq!(check(&high, &lineitem()).unwrap().as_primitive::<Int64Type>().values()[..], [0, 1, 1, 0]);
    let low = case(vec![(Expr::Not(Box::new(urgent)), lit(1i64))], Some(lit(0i64)));
    assert_eq!(check(&low, &lineitem()).unwrap().as_primitive::<Int64Type>().values()[..], [1, 0, 0, 1]);
    let column = case(vec![(binary(Eq, text_column(5), text("R")), col(1, D))], Some(decimal(0, 15, 2)));
    let input = &forms(&lineitem())[1];
    let array = compile(&column).unwrap().evaluate_array(input).unwrap();
    assert_eq!(array.data_type(), &DataType::Decimal64(15, 2));
    check(&column, &lineitem()).unwrap();
}

#[test]
fn q7_q9_years() {
    let year = call("date_part", vec![lit("YEAR"), col(4, DataType::Date32)]);
    let found = check(&year, &lineitem()).unwrap();
    assert_eq!(found.as_primitive::<Int32Type>().values()[..], [1996, 1994, 1994, 1994]);
    let profit = binary(Subtract, revenue(), binary(Multiply, col(0, D), col(0, D)));
    let found = check(&profit, &lineitem()).unwrap();
    assert_eq!(found.as_primitive::<Decimal128Type>().value(0), 2_116_823 * 96 - 1700 * 1700);
}

#[test]
fn q13_q16_patterns() {
    let not_like = |e: Expr, pattern: &str| Expr::Not(Box::new(like(e, pattern)));
    assert_eq!(selected(&not_like(text_column(10), "%special%requests%")), [1, 2]);
    let sizes = in_list(col(9, DataType::Int32), vec![lit(3i32), lit(15i32), lit(49i32)]);
    let q16 =
        and(and(binary(NotEq, text_column(7), text("Brand#34")), not_like(text_column(8), "MED%")), sizes);
    assert_eq!(selected(&q16), [0]);
}

#[test]
fn q19_disjunction_of_conjunctions() {
    let branch = |brand: &str, containers: [&str; 2], low: i128, size: i32| {
        let containers = in_list(text_column(8), containers.map(text).to_vec());
        let quantity = between(col(0, D), decimal(low, 15, 2), decimal(low + 1000, 15, 2));
        let sizes = between(col(9, DataType::Int32), lit(1i32), lit(size));
        and(and(and(binary(Eq, text_column(7), text(brand)), containers), quantity), sizes)
    };
    let any = or(
        or(
            branch("Brand#12", ["SM CASE", "SM PKG"], 700, 5),
            branch("Brand#23", ["MED BAG", "MED BOX"], 3000, 10),
        ),
        branch("Brand#34", ["LG CASE", "LG BOX"], 2000, 15),
    );
    let air = in_list(text_column(6), vec![text("AIR"), text("AIR REG"), text("TRUCK")]);
    assert_eq!(selected(&any), [0, 1, 3]);
    assert_eq!(selected(&and(air, any)), [0, 3]);
}

#[test]
fn q14_q17_q22_ratios_and_codes() {
    let hundred = binary(Multiply, decimal(10_000, 5, 2), col(1, D));
    let ratio = binary(Divide, hundred, col(0, D));
    let found = check(&ratio, &lineitem()).unwrap();
    assert_eq!(found.data_type(), &DataType::Decimal128(27, 8));
    assert_eq!(found.as_primitive::<Decimal128Type>().value(0), 10_000 * 2_116_823 * 1_000_000 / 1700);
    let code = call("substr", vec![text_column(7), lit(7i64), lit(2i64)]);
    assert_eq!(selected(&in_list(code, vec![text("12"), text("34")])), [0, 2, 3]);
    let below = binary(
        Lt,
        cast_to(col(0, D), DataType::Decimal128(30, 15)),
        binary(Multiply, decimal(2, 1, 1), cast_to(col(0, D), DataType::Decimal128(25, 14))),
    );
    assert_eq!(selected(&below), [] as [usize; 0]);
}
