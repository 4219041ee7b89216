//! Writes the log to standard error from a thread of its own.
//!
//! Rule: no worker waits for the log. Lines wait in a queue of [`MAX_QUEUED`] bytes, and lines
//! beyond that are lost and counted. The access log and lines for debugging leave [`RESERVE`] bytes
//! free. Reason: standard error may be a pipe without a reader, or a file on a full disk, and calls
//! must go on; and lines for requests must not take the place of a line that tells of a lost node.
//! Example: the reader of a pipe hangs for a minute. The proxy serves on, and the first line after
//! that minute is followed by the number of lost lines.

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

use serde_json::json;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::{
    MakeWriter,
    format::Writer,
    time::{FormatTime, SystemTime},
};

use crate::{config::LogFormat, door::access_log};

/// Bytes of lines that wait to be written.
const MAX_QUEUED: usize = 1 << 20;
/// The part of these that lines of the access log and below `INFO` cannot take.
const RESERVE: usize = 256 << 10;
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
    /// Bytes that the queue may have with another line of this writer.
    limit: usize,
}

/// Waits for the last lines when it is dropped, since the process ends then.
#[derive(Debug)]
#[must_use = "the last lines of the log are lost without it"]
pub(super) struct Flush(LogWriter);

impl LogWriter {
    /// Starts the thread that writes to `out` lines in this form.
    pub(super) fn start(out: impl Write + Send + 'static, format: LogFormat) -> (Self, Flush) {
        let (items, queue) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let writer = Self { items, counts: counts.clone(), limit: MAX_QUEUED };
        // Without a thread, all lines are lost, and the proxy serves.
        _ = thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&queue, &counts, out, format));
        (writer.clone(), Flush(writer))
    }
}

impl Write for LogWriter {
    /// Takes a whole line. Never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Counts { queued, lost } = &*self.counts;
        let is_room = queued.fetch_add(line.len(), Relaxed) + line.len() <= self.limit;
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

    fn make_writer_for(&self, line: &Metadata<'_>) -> Self {
        let leaves_room = *line.level() > Level::INFO || line.target() == access_log::TARGET;
        Self { limit: if leaves_room { MAX_QUEUED - RESERVE } else { MAX_QUEUED }, ..self.clone() }
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

fn write_all(queue: &Receiver<Item>, counts: &Counts, mut out: impl Write, format: LogFormat) {
    // A line that failed may be there in part: the next one must not stand behind that part.
    let mut is_cut = false;
    for item in queue {
        match item {
            Item::Line(line) => {
                let is_written = (!is_cut || out.write_all(b"\n").is_ok()) && out.write_all(&line).is_ok();
                is_cut = !is_written;
                counts.queued.fetch_sub(line.len(), Relaxed);
                let lost = counts.lost.swap(0, Relaxed) + u64::from(!is_written);
                if lost > 0 {
                    is_cut |= is_written && out.write_all(note(lost, format).as_bytes()).is_err();
                    if is_cut {
                        counts.lost.fetch_add(lost, Relaxed);
                    }
                }
            }
            Item::Flush(done) => _ = done.send(()),
        }
    }
}

/// The line that tells how many lines were lost.
fn note(lost: u64, format: LogFormat) -> String {
    const MESSAGE: &str = "lines of the log were lost";
    match format {
        LogFormat::Text => format!("{lost} {MESSAGE}\n"),
        LogFormat::Json => {
            let mut now = String::new();
            _ = SystemTime.format_time(&mut Writer::new(&mut now));
            let fields = json!({ "message": MESSAGE, "lost": lost });
            let line = json!({ "timestamp": now, "level": "WARN", "fields": fields, "target": module_path!() });
            format!("{line}\n")
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
        let (mut writer, flush) = LogWriter::start(Slow { written: written.clone(), permits }, LogFormat::Text);
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

    /// The lines that are written after a stall, during which `told` logs.
    fn lines_after_a_stall(format: LogFormat, told: impl FnOnce()) -> Vec<String> {
        let (permit, permits) = sync_channel(8);
        let written = Arc::new(Mutex::new(Vec::new()));
        let (writer, flush) = LogWriter::start(Slow { written: written.clone(), permits }, format);
        let builder = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).with_max_level(Level::DEBUG);
        match format {
            LogFormat::Text => tracing::subscriber::with_default(builder.finish(), told),
            LogFormat::Json => tracing::subscriber::with_default(builder.json().finish(), told),
        }
        drop(permit);
        drop(flush);
        let written = written.lock().unwrap();
        written.split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    /// Fills the queue as far as lines of the access log can, and more.
    fn log_many_requests() {
        for _ in 0..MAX_QUEUED / 256 {
            tracing::info!(target: access_log::TARGET, id = "x".repeat(256), "request");
        }
    }

    #[test]
    fn requests_and_debugging_leave_room_for_lines_that_matter() {
        let lines = lines_after_a_stall(LogFormat::Text, || {
            log_many_requests();
            for _ in 0..10 {
                tracing::debug!(all = "x".repeat(1000), "a detail");
            }
            tracing::warn!("node is not usable");
            tracing::info!("calls go elsewhere");
        });
        let has = |words: &str| lines.iter().any(|line| line.contains(words));
        assert!(has("node is not usable") && has("calls go elsewhere"), "{:?}", lines.last());
        assert!(!has("a detail") && has("lines of the log were lost"));
    }

    #[test]
    fn every_line_of_a_json_log_is_json_after_a_loss_too() {
        let lines = lines_after_a_stall(LogFormat::Json, log_many_requests);
        let lines: Vec<serde_json::Value> = lines
            .iter()
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        let note = lines.iter().find(|line| line["fields"]["message"] == "lines of the log were lost").unwrap();
        assert!(note["fields"]["lost"].as_u64().unwrap() > 100, "{note}");
        // The members of any other line.
        for key in ["timestamp", "level", "target"] {
            assert!(note[key].is_string() && lines[0][key].is_string(), "{note}");
        }
    }

    #[test]
    fn a_line_that_was_cut_does_not_swallow_the_next() {
        /// Writes half of its first bytes, and fails for the next ones.
        struct Half(Arc<Mutex<Vec<u8>>>, u8);
        impl Write for Half {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                let length = match self.1 {
                    1 => bytes.len() / 2,
                    2 => return Err(io::ErrorKind::StorageFull.into()),
                    _ => bytes.len(),
                };
                self.0.lock().unwrap().extend_from_slice(&bytes[..length]);
                Ok(length)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut writer, flush) = LogWriter::start(Half(written.clone(), 0), LogFormat::Text);
        writer.write_all(b"first\n").unwrap();
        writer.write_all(b"second\n").unwrap();
        drop(flush);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "fir\nsecond\n1 lines of the log were lost\n");
    }
}
