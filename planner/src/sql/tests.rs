//! What statements are bound to; messages and refusals, as a user sees them.

use arrow::datatypes::DataType;
use insta::assert_snapshot;

use crate::catalog::CatalogSnapshot;
use crate::explain;
use crate::sql::{self, Bound, Create, DropKind};
use crate::testing::{query, small};

fn error(sql: &str) -> String {
    query(sql, &small()).map(|_| String::new()).unwrap_err().to_string()
}

#[test]
fn a_syntax_error_shows_its_place() {
    let text = error("SELECT a,\nFROM WHERE t");
    assert!(text.contains('^'), "{text}");
}

#[test]
fn unknown_names_come_with_the_nearest_known_one() {
    let text = error("SELECT * FROM tt");
    assert!(text.contains("tt") && text.contains("did you mean") && text.contains('t'), "{text}");
    let text = error("SELECT userid, zz FROM u");
    assert!(text.contains("zz"), "{text}");
    let text = error("SELECT summ(a) FROM t");
    assert!(text.contains("sum"), "{text}");
}

#[test]
fn clauses_that_would_be_ignored_are_refused() {
    for sql in
        ["SELECT * FROM t TABLESAMPLE (10 PERCENT)", "SELECT * FROM t FOR UPDATE", "SELECT TOP 3 a FROM t"]
    {
        let text = error(sql);
        assert!(text.contains("not supported") || text.contains("syntax error"), "{sql}: {text}");
    }
}

#[test]
fn from_alone_is_a_query() {
    let plan = query("FROM t", &small()).unwrap();
    assert_eq!(plan.root.schema.fields().len(), 7);
}

fn bound(sql: &str) -> Bound {
    let statements = sql::parse(sql).unwrap();
    sql::bind(&statements[0], &small()).unwrap_or_else(|e| panic!("{sql}: {e}"))
}

#[test]
fn scripts_are_cut_into_statements() {
    let statements = sql::parse("  SELECT 1;;\n-- two\nSELECT ';' AS x -- end\n;").unwrap();
    let texts: Vec<&str> = statements.iter().map(|s| s.text.as_str()).collect();
    assert_eq!(texts, ["SELECT 1", "SELECT ';' AS x -- end"]);
    assert!(sql::parse(" ; ").unwrap().is_empty());
}

#[test]
fn statements_name_their_tables() {
    let tables = |sql: &str| sql::parse(sql).unwrap()[0].tables().unwrap();
    assert_eq!(
        tables("WITH x AS (SELECT * FROM A) SELECT * FROM x, 'f/b.parquet', s.\"C\", main.d"),
        ["a", "f/b.parquet", "d", "s.C"]
    );
    assert_eq!(tables("SELECT * FROM 'x.parquet' WHERE a IN (FROM b)"), ["b", "x.parquet"]);
}

#[test]
fn statements_are_bound() {
    match bound("CREATE TABLE IF NOT EXISTS n (a INTEGER NOT NULL, b DECIMAL(9,2), c VARCHAR(10))") {
        Bound::CreateTable { name, schema, options: Create { if_not_exists: true, .. } } => {
            assert_eq!(name, "n");
            let types: Vec<_> =
                schema.fields().iter().map(|f| (f.data_type().clone(), f.is_nullable())).collect();
            let expected =
                [(DataType::Int32, false), (DataType::Decimal128(9, 2), true), (DataType::Utf8View, true)];
            assert_eq!(types, expected);
        }
        other => panic!("{other:?}"),
    }
    match bound("CREATE OR REPLACE TABLE n AS FROM t") {
        Bound::CreateTableAs { name, query, options: Create { or_replace: true, .. } } => {
            assert_eq!((name.as_str(), query.schema().fields().len()), ("n", 7));
        }
        other => panic!("{other:?}"),
    }
    // The rows have the table's columns, those that are not named being null.
    match bound("INSERT INTO u (x) SELECT a FROM t") {
        Bound::Insert { table, query, overwrite: false } => {
            let names: Vec<&str> = query.schema().fields().iter().map(|f| f.name().as_str()).collect();
            assert_eq!((table.as_str(), names), ("u", vec!["a", "x", "UserID", "s"]));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(bound("DROP TABLE IF EXISTS a, b"),
        Bound::Drop { kind: DropKind::Table, names, if_exists: true, temporary: false } if names == ["a", "b"]));
    assert!(matches!(bound("EXPLAIN ANALYZE SELECT 1"), Bound::Explain { analyze: true, .. }));
    assert!(matches!(bound("SET Threads = 4"),
        Bound::Set { name, value } if name == "threads" && value == "4"));
    assert!(matches!(bound("SHOW threads"), Bound::Show { name } if name == "threads"));
    assert!(matches!(bound("DESCRIBE t"), Bound::Describe { plan } if plan.schema().fields().len() == 7));
    match bound("COPY (SELECT 1) TO 'x.parquet' STORED AS PARQUET OPTIONS (compression 'zstd')") {
        Bound::Copy { target, format, options, .. } => {
            assert_eq!((target.as_str(), format.as_deref()), ("x.parquet", Some("parquet")));
            assert_eq!(options, [("compression".to_string(), "zstd".to_string())]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn views_are_planned_where_they_are_named() {
    let mut catalog = small();
    let view = |catalog: &CatalogSnapshot, sql: &str| match sql::bind(&sql::parse(sql).unwrap()[0], catalog)
        .unwrap()
    {
        Bound::CreateView { name, sql, .. } => (name, sql),
        other => panic!("{other:?}"),
    };
    let (name, text) = view(&catalog, "CREATE VIEW v (k, n) AS FROM t SELECT a, count(*) GROUP BY ALL");
    catalog.views.insert(name, text);
    let (name, text) = view(&catalog, "CREATE VIEW w AS SELECT n FROM v WHERE k > 1");
    catalog.views.insert(name, text);
    let plan = |sql: &str| match query(sql, &catalog) {
        Ok(query) => explain::operator(&query.root),
        Err(e) => e.to_string(),
    };
    assert_snapshot!(plan("FROM w"), @"Project: count(Int64(1)) AS n");
    assert_snapshot!(plan("SELECT m FROM w"), @r"
    there is no column m
    line 1: SELECT m FROM w
                   ^
    there are: w.n
    ");
    catalog.views.insert("loop".into(), "SELECT * FROM loop".into());
    let error = query("FROM loop", &catalog).unwrap_err().to_string();
    assert!(error.contains("view loop names itself"), "{error}");
}

fn types_of(sql: &str) -> Vec<DataType> {
    let statements = sql::parse(sql).unwrap();
    sql::parameter_types(&statements[0], &small()).unwrap_or_else(|e| panic!("{sql}: {e}"))
}

#[test]
fn parameters_are_counted_and_typed_by_their_company() {
    use DataType::{Int64, Null, Utf8View};
    let table = small().tables["t"].schema.clone();
    let a = table.field_with_name("a").unwrap().data_type().clone();
    assert_eq!(types_of("SELECT a FROM t WHERE a = ?"), std::slice::from_ref(&a));
    assert_eq!(types_of("SELECT a FROM t WHERE a BETWEEN ? AND ?"), [a.clone(), a.clone()]);
    assert_eq!(types_of("SELECT a FROM t WHERE a IN ($2, $1)"), [a.clone(), a.clone()]);
    assert_eq!(types_of("SELECT CAST(? AS VARCHAR), ? FROM t LIMIT ?"), [Utf8View, Null, Int64]);
    assert_eq!(types_of("SELECT upper(?) || abs(?) FROM t").len(), 2);
    assert_eq!(types_of("SELECT a FROM t WHERE a = $3"), [Null, Null, a]);
    assert_eq!(types_of("SELECT '?', \"a\" -- ?\nFROM t"), []);
}

#[test]
fn values_become_literals_of_their_own_types() {
    use datafusion_common::ScalarValue;
    let bind = |sql: &str, values: &[ScalarValue]| match sql::parse(sql)
        .and_then(|parsed| sql::bind_values(&parsed[0], &small(), values))
    {
        Ok(Bound::Query(plan)) => {
            let planned = crate::plan_query(plan, &small()).unwrap();
            planned.root.schema.fields().iter().map(|f| f.to_string()).collect::<Vec<_>>().join("; ")
        }
        Ok(other) => format!("{other:?}"),
        Err(e) => e.to_string(),
    };
    let injected = ScalarValue::from("x' OR 'a' = 'a");
    let text = bind("SELECT ? AS a, $1 || 'b' AS b", std::slice::from_ref(&injected));
    assert_eq!(
        text,
        "syntax error: parameters are either all ? or all numbered, $1, $2, …\nline 1: SELECT ? AS a, $1 || 'b' AS b\n                       ^"
    );
    assert_eq!(
        bind("SELECT $1 AS a, $1 || 'b' AS b", &[injected]),
        "Field { \"a\": Utf8 }; Field { \"b\": Utf8 }"
    );
    let numbers = [ScalarValue::from(2i32), ScalarValue::from(1.5f64)];
    assert_eq!(
        bind("SELECT ? + ? AS n FROM t GROUP BY a HAVING count(*) > 0", &numbers),
        "Field { \"n\": Float64 }"
    );
    assert!(bind("SELECT ?", &numbers).contains("1 parameter, and 2 values were given"));
    assert!(bind("SELECT ?", &[]).contains("1 parameter and no values for them"));
    assert!(bind("CREATE VIEW v AS SELECT ? AS x", &numbers[..1]).contains("parameter in a view"));
    assert!(bind("SET threads = ?", &numbers[..1]).contains("parameter in SET"));
    let named = sql::parse("SELECT :name").unwrap_err().to_string();
    assert!(named.contains(":name") && named.contains("$1"), "{named}");
}
