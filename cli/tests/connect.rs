//! The binary as a server and as its client: the same answers as a local session, start, end, refusals.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

fn dovetail(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dovetail"));
    command.args(words).env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    dovetail(words).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A small dataset, written once.
fn data() -> &'static str {
    static DATA: OnceLock<String> = OnceLock::new();
    DATA.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("connect-data");
        let dir = dir.to_str().unwrap().to_owned();
        assert!(run(&["demo", &dir, "--scale-factor", "0.001", "--data-only"]).status.success());
        dir
    })
}

/// A server process; killed when it is dropped.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start(words: &[&str]) -> Server {
        let listen = ["server", "--listen", "127.0.0.1:0", "--threads", "2"];
        let words: Vec<&str> = listen.iter().chain(words).copied().collect();
        let mut process = dovetail(&words).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Server { process, url }
    }

    fn query(&self, words: &[&str]) -> Output {
        let words: Vec<&str> = ["--connect", &self.url].iter().chain(words).copied().collect();
        run(&words)
    }

    /// The exit code after a signal, and how long that took.
    fn end(mut self, signal: &str) -> (Option<i32>, Duration) {
        let start = Instant::now();
        send(signal, &self.process);
        let status = self.process.wait().unwrap();
        (status.code(), start.elapsed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn send(signal: &str, process: &Child) {
    let kill = Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap();
    assert!(kill.success());
}

const SCRIPT: &str = "\
    SELECT l_returnflag, l_linestatus, sum(l_quantity) AS q, avg(l_discount) AS a, min(l_shipdate) AS d, count(*) \
        FROM lineitem GROUP BY 1, 2 ORDER BY 1, 2; \
    SELECT * FROM lineitem ORDER BY l_orderkey, l_linenumber; \
    CREATE TABLE made AS SELECT 1 AS a, 'x' AS b; \
    INSERT INTO made VALUES (2, NULL); \
    CREATE VIEW seen AS SELECT a FROM made; \
    SELECT * FROM made ORDER BY a; SHOW TABLES; DESCRIBE seen; EXPLAIN SELECT a FROM made; \
    SELECT {'a': 1, 'b': 'x'} AS s, [1, 2] AS l, INTERVAL '1' DAY AS i, TIMESTAMP '2024-01-01 01:02:03.5' AS t, \
        CAST('abc' AS BYTEA) AS z, arrow_cast('k', 'Dictionary(Int32, Utf8)') AS k, NULL AS n, 1e300 AS e; \
    SELECT 1 AS x WHERE 1 = 2; \
    DROP VIEW seen; DROP TABLE made";

#[test]
fn every_format_prints_the_same_as_a_local_session() {
    let server = Server::start(&[data()]);
    for format in ["table", "csv", "tsv", "json", "ndjson", "markdown", "vertical"] {
        let local = run(&[data(), "--threads", "2", "--format", format, "-c", SCRIPT]);
        let remote = server.query(&["--format", format, "-c", SCRIPT]);
        assert_eq!((stderr(&local).as_str(), stderr(&remote).as_str()), ("", ""), "{format}");
        assert!(local.stdout == remote.stdout && !remote.stdout.is_empty(), "{format}");
    }
}

#[test]
fn errors_read_the_same_as_those_of_a_local_session() {
    let server = Server::start(&[data()]);
    for sql in [
        "SELEC 1",
        "SELECT nope FROM lineitem",
        "SELECT * FROM linitem",
        "SELECT 1; SELECT 1 / 0",
        "SELECT ?",
    ] {
        let (local, remote) = (run(&[data(), "-c", sql]), server.query(&["-c", sql]));
        assert_eq!((stderr(&local), local.stdout), (stderr(&remote), remote.stdout), "{sql}");
        assert_eq!(remote.status.code(), Some(1), "{sql}");
    }
}

#[test]
fn scripts_from_standard_input_and_times() {
    let server = Server::start(&[]);
    let mut child = dovetail(&["--connect", &server.url, "--format", "csv", "--timing"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"SELECT 1 AS a; SELECT 2 AS b").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a\n1\nb\n2\n");
    assert_eq!(stderr(&output).matches("time: ").count(), 2);
}

#[test]
fn signals_end_a_server_well() {
    for signal in ["-INT", "-TERM"] {
        let server = Server::start(&[]);
        assert!(server.query(&["-c", "SELECT 1"]).status.success());
        let (code, took) = server.end(signal);
        assert_eq!(code, Some(0), "{signal}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

const SLOW: &str = "WITH d AS (SELECT v FROM (VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)) t(v)) \
    SELECT sum(a.v + b.v * c.v - d.v + e.v * f.v - g.v + h.v * i.v - j.v) \
    FROM d a, d b, d c, d d, d e, d f, d g, d h, d i, d j";

#[test]
fn a_server_ends_although_a_query_runs() {
    let server = Server::start(&[]);
    let client = dovetail(&["--connect", &server.url, "-c", SLOW])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let (code, took) = server.end("-TERM");
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(15), "{took:?}");
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
}

#[test]
fn interrupting_a_client_stops_its_query() {
    let server = Server::start(&[]);
    let client = dovetail(&["--connect", &server.url, "-c", SLOW])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    send("-INT", &client);
    let output = client.wait_with_output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(
        (output.status.code(), stderr(&output).as_str()),
        (Some(1), "error: the query was cancelled\n")
    );
    assert!(server.query(&["-c", "SELECT 1"]).status.success());
    // Nothing is left running that the end would have to wait for.
    assert_eq!(server.end("-TERM").0, Some(0));
}

#[test]
fn an_open_port_needs_protection_or_insistence() {
    let refused = run(&["server", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.status.code(), Some(1));
    for words in ["--tls-cert", "--token-file", "--insecure", "read all data"] {
        assert!(stderr(&refused).contains(words), "{}", stderr(&refused));
    }
    let insecure = Server::start(&["--insecure"]);
    assert!(insecure.query(&["-c", "SELECT 1"]).status.success());
}

#[test]
fn a_token_and_tls() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(path("cert"), made.cert.pem()).unwrap();
    std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(path("token"), "this-is-the-right-token\n").unwrap();
    std::fs::write(path("wrong"), "this-is-another-token\n").unwrap();
    let (cert, key, token, wrong) = (path("cert"), path("key"), path("token"), path("wrong"));
    let server = Server::start(&["--tls-cert", &cert, "--tls-key", &key, "--token-file", &token]);
    assert!(server.url.starts_with("grpc+tls://"));
    let answer =
        |words: &[&str]| server.query(&[words, &["--format", "csv", "-c", "SELECT 1 AS a"]].concat());
    let right = answer(&["--tls-ca", &cert, "--token-file", &token]);
    assert_eq!((stderr(&right).as_str(), right.stdout.as_slice()), ("", &b"a\n1\n"[..]));
    for (words, told) in [
        (&["--tls-ca", &cert][..], "--token-file"),
        (&["--tls-ca", &cert, "--token-file", &wrong], "token"),
        (&["--token-file", &token], "--tls-ca"),
    ] {
        let output = answer(words);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
        assert!(!stderr(&output).contains("-token\n"), "{}", stderr(&output));
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    for words in [
        &["--connect", "grpc://127.0.0.1:1", "data", "-c", "SELECT 1"][..],
        &["--connect", "grpc://127.0.0.1:1", "--memory-limit", "1GB", "-c", "SELECT 1"],
        &["--connect", "127.0.0.1:1", "-c", "SELECT 1"],
        &["server", "--tls-cert", "x"],
    ] {
        assert_eq!(run(words).status.code(), Some(2), "{words:?}");
    }
    let alone = run(&["--token-file", "x", "-c", "SELECT 1"]);
    assert!(stderr(&alone).contains("--connect"), "{}", stderr(&alone));
    let nobody = run(&["--connect", "grpc://127.0.0.1:1", "-c", "SELECT 1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains("cannot connect to grpc://127.0.0.1:1"), "{}", stderr(&nobody));
}
