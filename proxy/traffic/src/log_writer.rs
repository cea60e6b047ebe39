//! The background writer of access logs.
//!
//! In: finished lines from any worker. Out: the same lines on standard output (or a file), many per write. Workers never
//! wait: lines beyond the bound are dropped and counted.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Bytes that may wait: about two thousand lines.
const BOUND: usize = 512 * 1024;
/// How long lines are collected before they are written; a burst costs one wake-up and one write.
const COLLECT: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Shared {
    lines: Mutex<State>,
    more: Condvar,
    ended: Condvar,
    overflow: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    closed: bool,
    ended: bool,
}

/// Takes lines; cheap to clone.
#[derive(Debug, Clone)]
pub struct LogWriter {
    shared: Arc<Shared>,
}

impl LogWriter {
    /// Starts the writing thread.
    pub fn start(mut sink: impl Write + Send + 'static, overflow: Arc<AtomicU64>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            lines: Mutex::default(),
            more: Condvar::new(),
            ended: Condvar::new(),
            overflow,
        });
        let thread = shared.clone();
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .stack_size(64 * 1024)
            .spawn(move || {
                let mut batch = Vec::new();
                loop {
                    let mut state = thread.lines.lock();
                    while state.bytes.is_empty() && !state.closed {
                        thread.more.wait(&mut state);
                    }
                    if !state.closed {
                        // Woken early only at the end of the process.
                        thread.more.wait_for(&mut state, COLLECT);
                    }
                    std::mem::swap(&mut batch, &mut state.bytes);
                    let closed = state.closed;
                    drop(state);
                    // A reader that went away (closed pipe) must not stop the proxy.
                    let _lost = sink.write_all(&batch).and_then(|()| sink.flush());
                    batch.clear();
                    batch.shrink_to(64 * 1024);
                    if closed {
                        thread.lines.lock().ended = true;
                        thread.ended.notify_all();
                        return;
                    }
                }
            })?;
        Ok(Self { shared })
    }

    /// Hands over one line, its end included.
    pub fn line(&self, line: &[u8]) {
        let mut state = self.shared.lines.lock();
        if state.bytes.len() + line.len() > BOUND {
            drop(state);
            self.shared.overflow.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = state.bytes.is_empty();
        state.bytes.extend_from_slice(line);
        drop(state);
        if first {
            self.shared.more.notify_one();
        }
    }

    /// Waits until what is there has been written, but no longer than `limit` (nobody may read the log), then takes no more; for
    /// the end of the process.
    pub fn close(&self, limit: Duration) {
        let mut state = self.shared.lines.lock();
        state.closed = true;
        self.shared.more.notify_one();
        self.shared
            .ended
            .wait_while_for(&mut state, |state| !state.ended, limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    // F3
    #[test]
    fn lines_arrive_and_overflow_is_counted() {
        let (sink, overflow) = (Sink::default(), Arc::new(AtomicU64::new(0)));
        let writer = LogWriter::start(sink.clone(), overflow.clone()).unwrap();
        let long = vec![b'x'; BOUND];
        writer.line(b"one\n");
        writer.line(&long);
        writer.close(Duration::from_secs(60));
        assert_eq!(&*sink.0.lock(), b"one\n");
        assert_eq!(overflow.load(Ordering::Relaxed), 1);
    }
}
