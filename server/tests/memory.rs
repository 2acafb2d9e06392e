//! Limits of memory for each user and each session: who meets one spills, or fails alone.

mod served;

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow_flight::error::FlightError;
use dovetail_server::flight_sql::Limits;
use dovetail_server::security::users::{Role, Users, add};
use dovetail_server::security::{Secret, Security};
use futures::TryStreamExt;
use served::{Client, Served, refused};
use tonic::Code;

const MIB: u64 = 1 << 20;

/// 100 000 rows.
const ROWS: &str = "WITH d AS (SELECT v FROM (VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)) t(v)), \
    n AS (SELECT a.v + 10 * b.v + 100 * c.v + 1000 * e.v + 10000 * f.v AS k FROM d a, d b, d c, d e, d f) ";

/// A group for each of them, of a long key.
const GROUPS: &str = "SELECT count(*), sum(s) FROM (SELECT repeat(CAST(k AS VARCHAR), 20) AS t, sum(k) AS s FROM n GROUP BY t)";

/// All of them in one value, which cannot spill.
const TOO_LARGE: &str = "SELECT string_agg(repeat(CAST(k AS VARCHAR), 50), '' ORDER BY k) FROM n";

fn served(limits: Limits) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    for name in ["anna", "bert"] {
        add(&file, name, Role::ReadOnly, &Secret::new(format!("{name}{name}"))).unwrap();
    }
    let users = Some(Arc::new(Users::read(&file).unwrap()));
    let token = Some(Secret::new("a-token-that-nobody-guesses"));
    Served::with(Security { token, users, ..Security::default() }, limits, None)
}

fn sign_in(served: &Served, name: &str) -> Client {
    let mut client = served.client_without_token();
    served.runtime.block_on(client.handshake(name, &format!("{name}{name}"))).unwrap();
    client
}

fn run(served: &Served, client: &mut Client, sql: &str) -> Result<Vec<RecordBatch>, FlightError> {
    served.runtime.block_on(async {
        let info = client.execute(sql.to_owned(), None).await?;
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        client.do_get(ticket).await?.try_collect().await
    })
}

fn numbers(rows: &[RecordBatch]) -> Vec<i64> {
    rows[0].columns().iter().map(|column| column.as_primitive::<Int64Type>().value(0)).collect()
}

fn text(rows: &[RecordBatch], column: usize) -> String {
    rows[0].column(column).as_string::<i32>().value(0).to_owned()
}

#[test]
fn a_user_spills_at_the_users_limit_and_is_right() {
    let served = served(Limits { memory_per_user: Some(8 * MIB), ..Limits::default() });
    let groups = format!("{ROWS}{GROUPS}");
    served.session.execute(&groups).unwrap();
    assert_eq!(served.session.memory().spilled_bytes, 0, "the server as a whole has room");
    let (mut anna, mut bert) = (sign_in(&served, "anna"), sign_in(&served, "bert"));
    assert_eq!(numbers(&run(&served, &mut anna, &groups).unwrap()), [100_000, 4_999_950_000]);
    assert!(served.session.memory().spilled_bytes > 0);
    let shown = run(&served, &mut bert, "SHOW memory_per_user").unwrap();
    assert_eq!(text(&shown, 1), "8.0 MiB");
    let shown =
        run(&served, &mut bert, "SELECT value FROM system.settings WHERE name = 'memory_per_session'");
    assert_eq!(text(&shown.unwrap(), 0), "none");
    served.wait_until_running(false);
    assert_eq!(served.session.memory().used_bytes, 0);
}

#[test]
fn what_cannot_spill_fails_alone() {
    let served = served(Limits { memory_per_user: Some(8 * MIB), ..Limits::default() });
    let mut bert = sign_in(&served, "bert");
    std::thread::scope(|scope| {
        let failing = scope.spawn(|| {
            let mut anna = sign_in(&served, "anna");
            refused(run(&served, &mut anna, &format!("{ROWS}{TOO_LARGE}")))
        });
        let mut answers = 0;
        while answers == 0 || !failing.is_finished() {
            let rows = run(&served, &mut bert, &format!("{ROWS} SELECT count(*) FROM n")).unwrap();
            assert_eq!(numbers(&rows), [100_000]);
            answers += 1;
        }
        let (code, message) = failing.join().unwrap();
        assert_eq!(code, Code::ResourceExhausted);
        for words in [" needs ", "the limit of a user is 8.0 MiB", "Raise --memory-per-user"] {
            assert!(message.contains(words), "{message}");
        }
    });
    served.wait_until_running(false);
    assert_eq!(served.session.memory().used_bytes, 0);
    // Whoever holds nothing any more may hold as much as before.
    let mut anna = sign_in(&served, "anna");
    run(&served, &mut anna, &format!("{ROWS}{GROUPS}")).unwrap();
}

#[test]
fn a_session_has_its_part_of_the_users() {
    let limits =
        Limits { memory_per_user: Some(12 * MIB), memory_per_session: Some(8 * MIB), ..Limits::default() };
    let served = served(limits);
    let (mut one, mut another) = (sign_in(&served, "anna"), sign_in(&served, "anna"));
    let table = |rows: usize| {
        format!(
            "CREATE TEMP TABLE t AS {ROWS} SELECT repeat(CAST(k AS VARCHAR), 20) AS t FROM n WHERE k < {rows}"
        )
    };
    let (code, message) = refused(run(&served, &mut one, &table(60_000)));
    assert!(code == Code::ResourceExhausted && message.contains("raise --memory-per-session"), "{message}");
    run(&served, &mut one, &table(20_000)).unwrap();
    let held = served.session.memory().used_bytes;
    assert!(held > 2 * MIB, "{held}");
    run(&served, &mut another, &table(20_000)).unwrap();
    assert_eq!(served.session.memory().used_bytes, 2 * held);
    let (code, message) = refused(run(&served, &mut another, &format!("{ROWS}{TOO_LARGE}")));
    assert!(code == Code::ResourceExhausted && message.contains("Raise --memory-per-"), "{message}");
    run(&served, &mut one, "DROP TABLE t").unwrap();
    run(&served, &mut another, "DROP TABLE t").unwrap();
    assert_eq!(served.session.memory().used_bytes, 0);
}
