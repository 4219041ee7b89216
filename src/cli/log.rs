//! Writes the log to standard error from a thread of its own.
//!
//! Rule: no worker waits for the log. Lines wait in a queue of [`MAX_QUEUED`] bytes, and lines
//! beyond that are lost and counted. Reason: standard error may be a pipe that nobody reads, or a
//! file on a full disk, and calls must go on. Example: the reader of a pipe hangs for a minute. The
//! proxy serves on, and the first line after that minute is followed by the number of lost lines.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// Bytes of lines that wait to be written.
const MAX_QUEUED: usize = 1 << 20;
/// How long the end of the process waits for the last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

enum Item {
    Line(Vec<u8>),
    /// All lines before are written.
    Flush(Sender<()>),
}

#[derive(Debug, Default)]
struct Counts {
    /// Bytes in the queue.
    queued: AtomicUsize,
    /// Lines that were lost since this was last told.
    lost: AtomicU64,
}

/// Takes lines for the thread that writes.
#[derive(Clone, Debug)]
pub(super) struct LogWriter {
    items: Sender<Item>,
    counts: Arc<Counts>,
}

/// Waits for the last lines when it is dropped, since the process ends then.
#[derive(Debug)]
#[must_use = "the last lines of the log are lost without it"]
pub(super) struct Flush(LogWriter);

impl LogWriter {
    /// Starts the thread that writes to `out`.
    pub(super) fn start(out: impl Write + Send + 'static) -> (Self, Flush) {
        let (items, queue) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let writer = Self { items, counts: counts.clone() };
        // Without a thread, all lines are lost, and the proxy serves.
        _ = thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&queue, &counts, out));
        (writer.clone(), Flush(writer))
    }
}

impl Write for LogWriter {
    /// Takes a whole line. Never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Counts { queued, lost } = &*self.counts;
        let is_room = queued.fetch_add(line.len(), Relaxed) + line.len() <= MAX_QUEUED;
        if !is_room || self.items.send(Item::Line(line.to_vec())).is_err() {
            queued.fetch_sub(line.len(), Relaxed);
            lost.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let (done, is_done) = mpsc::channel();
        if self.0.items.send(Item::Flush(done)).is_ok() {
            _ = is_done.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

fn write_all(queue: &Receiver<Item>, counts: &Counts, mut out: impl Write) {
    for item in queue {
        match item {
            Item::Line(line) => {
                let is_written = out.write_all(&line).is_ok();
                counts.queued.fetch_sub(line.len(), Relaxed);
                let lost = counts.lost.swap(0, Relaxed) + u64::from(!is_written);
                if lost > 0 && (!is_written || writeln!(out, "{lost} lines of the log were lost").is_err()) {
                    counts.lost.fetch_add(lost, Relaxed);
                }
            }
            Item::Flush(done) => _ = done.send(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc::sync_channel};

    use super::*;

    /// Written bytes, of which each write waits for a permit and may fail.
    struct Slow {
        written: Arc<Mutex<Vec<u8>>>,
        permits: Receiver<bool>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.permits.recv().unwrap_or(true) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_beyond_the_queue_are_lost_and_counted() {
        let (permit, permits) = sync_channel(8);
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut writer, flush) = LogWriter::start(Slow { written: written.clone(), permits });
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        for _ in 0..MAX_QUEUED / line.len() + 10 {
            writer.write_all(&line).unwrap();
        }
        // A write fails, as on a full disk.
        permit.send(false).unwrap();
        drop(permit);
        drop(flush);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(text.contains("\n11 lines of the log were lost\n"), "{:?}", text.lines().last());
        assert_eq!(text.lines().filter(|line| line.starts_with('x')).count(), MAX_QUEUED / line.len() - 1);
    }
}
