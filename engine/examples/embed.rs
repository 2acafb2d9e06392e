//! Dovetail inside a program: a session with a table in memory, a query, its rows.
//!
//! `cargo run --release -p dovetail-engine --example embed`

use arrow::util::pretty::print_batches;
use dovetail_engine::{Result, Session, SessionOptions};

fn main() -> Result<()> {
    let session = Session::new(SessionOptions::default())?;
    session.execute("CREATE TABLE sales (region VARCHAR, amount DECIMAL(12, 2))")?;
    session.execute("INSERT INTO sales VALUES ('north', 10.50), ('south', 7.25), ('north', 1.25)")?;
    let result =
        session.execute("SELECT region, sum(amount) AS total FROM sales GROUP BY region ORDER BY region")?;
    print_batches(&result.batches)?;
    Ok(())
}
