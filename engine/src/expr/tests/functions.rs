//! Calls of library functions, and what becomes of dictionaries.

use super::*;
use BinaryOp::*;

fn phones() -> Batch {
    let values = vec![Some("13-702"), Some("13-111"), None, Some("29-1"), Some("13-702")];
    batch(vec![
        Arc::new(StringViewArray::from(values)) as ArrayRef,
        Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), None, Some(5)])) as ArrayRef,
    ])
}

fn phone() -> Expr {
    col(0, DataType::Utf8View)
}

#[test]
fn functions_take_constants_and_columns() {
    let code = call("substr", vec![phone(), lit(1i64), lit(2i64)]);
    let expected = StringViewArray::from(vec![Some("13"), Some("13"), None, Some("29"), Some("13")]);
    assert_eq!(logical(&check(&code, &phones()).unwrap(), &DataType::Utf8View).as_string_view(), &expected);
    let shout = call("upper", vec![text("abc")]);
    assert_eq!(evaluate(&shout, &phones()).unwrap().len(), 5);
    let from_column = call("substr", vec![phone(), col(1, DataType::Int64)]);
    let expected = StringViewArray::from(vec![Some("13-702"), Some("3-111"), None, None, Some("02")]);
    assert_eq!(
        logical(&check(&from_column, &phones()).unwrap(), &DataType::Utf8View).as_string_view(),
        &expected
    );
}

#[test]
fn functions_of_a_dictionary_give_a_dictionary_of_distinct_values() {
    let input = &forms(&phones())[1];
    let code = call("substr", vec![phone(), lit(1i64), lit(2i64)]);
    let array = compile(&code).unwrap().evaluate_array(input).unwrap();
    let dictionary = array.as_dictionary::<UInt32Type>();
    assert_eq!(dictionary.values().len(), 2);
    assert_eq!(dictionary.null_count(), 1);
    // A function of null that is not null.
    let filled = call("coalesce", vec![phone(), text("none")]);
    let array = compile(&filled).unwrap().evaluate_array(input).unwrap();
    let dictionary = array.as_dictionary::<UInt32Type>();
    assert_eq!((dictionary.values().len(), dictionary.null_count()), (4, 0));
    check(&filled, &phones()).unwrap();
    // A result that is null where the value is not, next to a null that gets a value.
    let odd = case(vec![(is(IsTest::Null, phone()), text("none")), (like(phone(), "13%"), text("13"))], None);
    let expected = StringViewArray::from(vec![Some("13"), Some("13"), Some("none"), None, Some("13")]);
    assert_eq!(check(&odd, &phones()).unwrap().as_string_view(), &expected);
    check(&call("octet_length", vec![phone()]), &phones()).unwrap();
    check(&is(IsTest::Null, phone()), &phones()).unwrap();
}

#[test]
fn large_dictionaries_are_read_by_row() {
    let all: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..1000).map(|i| format!("value {i}"))));
    let keys = UInt32Array::from(vec![Some(7), None, Some(999)]);
    let column: ArrayRef = Arc::new(DictionaryArray::try_new(keys, all).unwrap());
    let input = batch(vec![column]);
    let expr = binary(Eq, phone(), text("value 999"));
    let expected = BooleanArray::from(vec![Some(false), None, Some(true)]);
    assert_eq!(evaluate(&expr, &input).unwrap().as_boolean(), &expected);
    assert_eq!(Predicate::compile(&expr).unwrap().select(&input).unwrap().unwrap().values(), &[2]);
}

#[test]
fn two_dictionaries_meet() {
    let names = |v: Vec<Option<&str>>| Arc::new(StringViewArray::from(v)) as ArrayRef;
    let input = batch(vec![
        names(vec![Some("a"), Some("b"), None, Some("a")]),
        names(vec![Some("b"), Some("b"), Some("c"), None]),
    ]);
    let (l, r) = (col(0, DataType::Utf8View), col(1, DataType::Utf8View));
    let equal = check(&binary(Eq, l.clone(), r.clone()), &input).unwrap();
    assert_eq!(equal.as_boolean(), &BooleanArray::from(vec![Some(false), Some(true), None, None]));
    let both = check(&binary(Concat, l.clone(), r.clone()), &input).unwrap();
    assert_eq!(both.as_string_view(), &StringViewArray::from(vec![Some("ab"), Some("bb"), None, None]));
    let larger = case(vec![(binary(Gt, l.clone(), r.clone()), l)], Some(r));
    let expected = StringViewArray::from(vec![Some("b"), Some("b"), Some("c"), None]);
    assert_eq!(check(&larger, &input).unwrap().as_string_view(), &expected);
}

#[test]
fn bare_columns_are_handed_on_ungathered() {
    let input = &forms(&phones())[3];
    let column = compile(&phone()).unwrap().evaluate(input).unwrap();
    assert!(column.indices().is_some());
    assert!(matches!(column.data_type(), DataType::Dictionary(_, _)));
}

#[test]
fn years_of_dates() {
    let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(9131), None, Some(-1)]));
    let year = call("date_part", vec![lit("YEAR"), col(0, DataType::Date32)]);
    let expected = Int32Array::from(vec![Some(1995), None, Some(1969)]);
    assert_eq!(check(&year, &batch(vec![days])).unwrap().as_primitive::<Int32Type>(), &expected);
}
