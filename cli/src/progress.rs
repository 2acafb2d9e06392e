//! A line on a terminal's standard error that tells how far a query is, from half a second on.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use dovetail_engine::Progress;
use dovetail_engine::memory::readable;

use crate::database::Database;

/// Quick queries show nothing.
const BEFORE_FIRST: Duration = Duration::from_millis(500);
const BETWEEN: Duration = Duration::from_millis(250);
/// Back to the start of the line, and clear it.
const CLEAR: &str = "\r\x1b[2K";

/// Runs a statement while another thread shows how far it is, if somebody can see it.
pub fn with_progress<T>(database: &Database, work: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    std::thread::scope(|scope| {
        let (done, is_done) = channel::<()>();
        scope.spawn(move || {
            let start = Instant::now();
            let mut wait = BEFORE_FIRST;
            let mut shown = false;
            while is_done.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = BETWEEN;
                if let Some(progress) = database.progress() {
                    shown = true;
                    // A terminal that is gone is no reason to stop the query.
                    let _ = write!(io::stderr(), "{CLEAR}{}", line(&progress, start.elapsed()));
                }
            }
            if shown {
                let _ = write!(io::stderr(), "{CLEAR}");
            }
        });
        let result = work();
        drop(done);
        result
    })
}

fn line(p: &Progress, elapsed: Duration) -> String {
    let spilled = match p.bytes_spilled {
        0 => String::new(),
        bytes => format!(", {} spilled", readable(bytes)),
    };
    format!(
        "{} of {} tasks, {} read, {} in memory{spilled}, {:.0} s",
        p.tasks_done,
        p.tasks,
        readable(p.bytes_read),
        readable(p.memory_bytes),
        elapsed.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_what_was_spilled_if_anything_was() {
        let mut progress = Progress {
            tasks_done: 3,
            tasks: 10,
            bytes_read: 5 << 20,
            bytes_spilled: 0,
            memory_bytes: 3 << 30,
        };
        let elapsed = Duration::from_millis(1400);
        assert_eq!(line(&progress, elapsed), "3 of 10 tasks, 5.0 MiB read, 3.0 GiB in memory, 1 s");
        progress.bytes_spilled = 1 << 30;
        assert!(line(&progress, elapsed).ends_with("in memory, 1.0 GiB spilled, 1 s"));
    }
}
