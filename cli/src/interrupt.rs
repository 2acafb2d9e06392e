//! Ctrl-C: what a running query or a running write is told by it.
//!
//! While an [`Interrupts`] exists, the signal no longer ends the process; it sets a flag and calls what
//! was registered. The signal arrives on a thread of its own, so whoever works need not poll for it,
//! but may.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ctrl-C as a flag and a callback.
#[derive(Clone)]
pub struct Interrupts {
    raised: Arc<AtomicBool>,
}

impl Interrupts {
    /// From now on Ctrl-C calls `on_interrupt`, at once and each time, instead of ending the process.
    pub fn watch(on_interrupt: impl Fn() + Send + 'static) -> io::Result<Interrupts> {
        let raised = Arc::new(AtomicBool::new(false));
        let flag = raised.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        // The handler stands before this returns, so that no signal falls between.
        let mut signal = {
            let _guard = runtime.enter();
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?
        };
        std::thread::Builder::new().name("interrupts".to_owned()).spawn(move || {
            runtime.block_on(async {
                while signal.recv().await.is_some() {
                    flag.store(true, Ordering::SeqCst);
                    on_interrupt();
                }
            })
        })?;
        Ok(Interrupts { raised })
    }

    /// Whether Ctrl-C was pressed since the last `clear`.
    pub fn raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Forgets what was pressed.
    pub fn clear(&self) {
        self.raised.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[test]
    fn the_signal_sets_the_flag_and_calls_back() {
        let called = Arc::new(AtomicBool::new(false));
        let interrupts = Interrupts::watch({
            let called = called.clone();
            move || called.store(true, Ordering::SeqCst)
        })
        .unwrap();
        assert!(!interrupts.raised());
        let kill = format!("kill -INT {}", std::process::id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let start = Instant::now();
        while !(interrupts.raised() && called.load(Ordering::SeqCst)) {
            assert!(start.elapsed() < Duration::from_secs(10), "the signal was not heard");
            std::thread::sleep(Duration::from_millis(5));
        }
        interrupts.clear();
        assert!(!interrupts.raised());
    }
}
