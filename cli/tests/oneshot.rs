//! The binary as scripts use it: formats, exit codes, errors, standard input, broken pipes.

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

fn dovetail(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dovetail"));
    command.args(words).env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

fn run(words: &[&str]) -> Output {
    dovetail(words).output().unwrap()
}

fn stdout(words: &[&str]) -> String {
    let output = run(words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn with_stdin(words: &[&str], input: &str) -> Output {
    let mut child =
        dovetail(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

const ROWS: &str =
    "SELECT * FROM (VALUES (1, 'a,b', 1.50), (2, NULL, 20.25)) AS t(id, name, price) ORDER BY id";

#[test]
fn csv_has_a_header_and_quotes_where_needed() {
    assert_eq!(stdout(&["--format", "csv", "-c", ROWS]), "id,name,price\n1,\"a,b\",1.50\n2,,20.25\n");
}

#[test]
fn csv_has_no_empty_lines() {
    assert_eq!(stdout(&["--format", "csv", "-c", "SELECT CAST(NULL AS INTEGER) AS x"]), "x\n\"\"\n");
}

#[test]
fn tsv_markdown_and_json() {
    assert_eq!(stdout(&["--format", "tsv", "-c", ROWS]), "id\tname\tprice\n1\ta,b\t1.50\n2\t\t20.25\n");
    assert_eq!(
        stdout(&["--format", "markdown", "-c", ROWS]),
        "| id | name | price |\n| ---: | --- | ---: |\n| 1 | a,b | 1.50 |\n| 2 | NULL | 20.25 |\n"
    );
    assert_eq!(
        stdout(&["--format", "ndjson", "-c", ROWS]),
        "{\"id\":1,\"name\":\"a,b\",\"price\":1.50}\n{\"id\":2,\"name\":null,\"price\":20.25}\n"
    );
    assert_eq!(
        stdout(&["--format", "json", "-c", ROWS]),
        "[\n{\"id\":1,\"name\":\"a,b\",\"price\":1.50},\n{\"id\":2,\"name\":null,\"price\":20.25}\n]\n"
    );
    assert_eq!(stdout(&["--format", "json", "-c", "SELECT 1 AS x WHERE 1 = 2"]), "[]\n");
}

#[test]
fn vertical_has_a_line_for_each_value() {
    assert_eq!(
        stdout(&["--format", "vertical", "-c", ROWS]),
        "-[ row 1 ]-\nid    | 1\nname  | a,b\nprice | 1.50\n-[ row 2 ]-\nid    | 2\nname  | NULL\nprice | 20.25\n2 rows\n"
    );
}

#[test]
fn a_table_is_whole_and_plain_when_it_is_no_terminal() {
    let text = stdout(&["-c", "SELECT v AS n FROM (VALUES (1), (2)) t(v) ORDER BY v"]);
    assert!(text.contains(" n │"), "{text}");
    assert!(text.ends_with("2 rows, 1 column\n"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn values_in_csv() {
    let sql = "SELECT DATE '2024-02-29' AS d, TIMESTAMP '2024-02-29 01:02:03' AS t, \
               TIMESTAMP '2024-02-29 01:02:03.5' AS f, true AS b, CAST(0.1 AS DOUBLE) AS x, \
               CAST(12 AS DECIMAL(10,3)) AS p, '' AS e, 'say \"hi\"' AS q";
    assert_eq!(
        stdout(&["--format", "csv", "-c", sql]).lines().nth(1).unwrap(),
        "2024-02-29,2024-02-29 01:02:03,2024-02-29 01:02:03.500000,true,0.1,12.000,\"\",\"say \"\"hi\"\"\""
    );
}

#[test]
fn scripts_run_in_order_and_commands_print_no_rows() {
    let script = "CREATE TABLE t AS SELECT 1 AS x; -- a comment; with a semicolon\n\
                  SELECT ';' AS s; SELECT x + 1 AS y FROM t;\nDROP TABLE t;\n";
    assert_eq!(stdout(&["--format", "csv", "-c", script]), "s\n;\ny\n2\n");
    let output = with_stdin(&["--format", "csv"], script);
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "s\n;\ny\n2\n");
    let output = with_stdin(&["--format", "csv", "-f", "/dev/stdin"], script);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "s\n;\ny\n2\n");
    assert_eq!(stdout(&["--format", "csv", "-c", "SELECT 1 AS a", "-c", "SELECT 2 AS b"]), "a\n1\nb\n2\n");
}

#[test]
fn timing_is_a_line_for_each_statement() {
    let output = run(&["--timing", "--format", "csv", "-c", "SELECT 1 AS a; SELECT 2 AS b"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    for line in lines {
        let number = line.strip_prefix("time: ").and_then(|l| l.strip_suffix(" s")).unwrap();
        assert!(
            number.parse::<f64>().unwrap() >= 0.0 && number.split('.').nth(1).unwrap().len() == 6,
            "{line}"
        );
    }
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "a\n1\nb\n2\n");
}

#[test]
fn an_error_ends_the_script_with_exit_code_1() {
    let output = run(&["--format", "csv", "-c", "SELECT 1 AS a; SELECT * FROM no_such_table; SELECT 3 AS c"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a\n1\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("error: ") && stderr.contains("no_such_table"), "{stderr}");
    assert!(!stderr.trim_end().contains("\n\n") && !stderr.contains('\x1b'), "{stderr}");
}

#[test]
fn a_failing_query_prints_no_rows() {
    let sql = "SELECT CAST(v AS INTEGER) AS n FROM (VALUES ('1'), ('x')) t(v)";
    for format in ["table", "csv", "tsv", "json", "ndjson", "markdown", "vertical"] {
        let output = run(&["--format", format, "-c", sql]);
        assert_eq!(output.status.code(), Some(1), "{format}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{format}");
    }
}

#[test]
fn wrong_places_and_files_are_errors() {
    for words in [&["/no/such/folder", "-c", "SELECT 1"][..], &["-f", "/no/such/file.sql"][..]] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with("error: ") && stderr.contains("/no/such/"), "{stderr}");
    }
    assert_eq!(run(&["--threads", "0", "-c", "SELECT 1"]).status.code(), Some(2));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sql = "SELECT a.v * 10 + b.v AS n, 'some text that fills the pipe' AS t FROM \
               (VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)) a(v), (VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)) b(v), \
               (VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)) c(v), (VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)) d(v)";
    let mut child = dovetail(&["--format", "csv", "-c", sql])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0u8; 3];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    // The pipe's end is closed now, with most of the rows still to come.
    let output = child.wait_with_output().unwrap();
    assert_eq!(&first, b"n,t");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success(), "{:?}", output.status);
}

#[test]
fn both_schedulers_and_any_partition_count() {
    for scheduler in ["threads", "synchronous"] {
        for partitions in ["1", "7"] {
            let words = ["--scheduler", scheduler, "--partitions", partitions, "--format", "csv", "-c"];
            let sql = "SELECT v, count(*) AS c FROM (VALUES (1), (2), (1)) t(v) GROUP BY v ORDER BY v";
            assert_eq!(stdout(&[&words[..], &[sql]].concat()), "v,c\n1,2\n2,1\n", "{words:?}");
        }
    }
}

#[test]
fn help_names_every_flag() {
    let help = stdout(&["--help"]);
    for flag in ["--format", "--timing", "--threads", "--partitions", "--scheduler", "demo", "DIR_OR_URL"] {
        assert!(help.contains(flag), "{flag} in {help}");
    }
}
