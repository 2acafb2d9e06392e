//! Rows of a system table, and the query that gives them.

use arrow::temporal_conversions::timestamp_us_to_datetime;

/// A column: its name and its SQL type.
pub type Column = (&'static str, &'static str);

/// A few rows of values.
pub struct SystemTable {
    columns: &'static [Column],
    rows: Vec<String>,
}

/// A value, as a literal.
pub enum Value<'a> {
    Text(&'a str),
    Number(u64),
    Flag(bool),
    /// Microseconds since 1970, UTC.
    Timestamp(i64),
}

impl SystemTable {
    pub fn new(columns: &'static [Column]) -> SystemTable {
        SystemTable { columns, rows: vec![] }
    }

    /// Adds a row: a value for each column.
    pub fn push(&mut self, values: &[Value<'_>]) {
        assert_eq!(values.len(), self.columns.len(), "a row of a system table has its columns");
        let literals: Vec<String> = values.iter().map(Value::literal).collect();
        self.rows.push(format!("({})", literals.join(", ")));
    }

    /// The query whose rows these are.
    pub fn select(&self) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|(name, sql_type)| format!("CAST({name} AS {sql_type}) AS {name}"))
            .collect();
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        let (rows, filter) = match self.rows.is_empty() {
            true => (format!("({})", vec!["NULL"; names.len()].join(", ")), " WHERE false"),
            false => (self.rows.join(", "), ""),
        };
        format!("SELECT {} FROM (VALUES {rows}) AS t({}){filter}", columns.join(", "), names.join(", "))
    }
}

impl Value<'_> {
    fn literal(&self) -> String {
        match self {
            Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Value::Number(number) => number.to_string(),
            Value::Flag(flag) => flag.to_string(),
            Value::Timestamp(micros) => match timestamp_us_to_datetime(*micros) {
                Some(time) => format!("TIMESTAMP '{time}'"),
                None => "NULL".into(),
            },
        }
    }
}
