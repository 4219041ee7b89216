//! Writes the log to standard error from a thread of its own.
//!
//! Rule: no worker waits for the log. Lines wait in a queue of [`MAX_QUEUED`] bytes, and lines
//! beyond that are lost and counted. The access log and lines for debugging leave [`RESERVE`] bytes
//! free. Reason: standard error may be a pipe without a reader, or a file on a full disk, and calls
//! must go on; and lines for requests must not take the place of a line that tells of a lost node.
//! Example: the reader of a pipe hangs for a minute. The proxy serves on, and the first line after
//! that minute is followed by the number of lost lines.

mod repeated;

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        MakeWriter,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    reload::Error,
    util::SubscriberInitExt,
};

use self::repeated::Repeated;
use crate::{
    app::SetLog,
    config::{Log, LogFilter, LogFormat},
    door::access_log,
};

/// Bytes of lines that wait to be written.
const MAX_QUEUED: usize = 1 << 20;
/// The part of these that lines of the access log and below `INFO` cannot take.
const RESERVE: usize = 256 << 10;
/// How long the end of the process waits for the last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The time between two looks for lines that were left out.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(10);

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
    fn start(out: impl Write + Send + 'static, format: LogFormat, repeated: Repeated) -> (Self, Flush) {
        let (items, queue) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let writer = Self { items, counts: counts.clone(), limit: MAX_QUEUED };
        // Without a thread, all lines are lost, and the proxy serves.
        _ = thread::Builder::new().name("log".to_owned()).spawn(move || {
            write_all(&queue, &counts, out, format, &repeated);
        });
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

/// Logs to standard error from here on, until the process ends. The level can be changed.
pub(super) fn start_log(log: &Log) -> (Flush, SetLog) {
    let repeated = Repeated::default();
    let (writer, flush) = LogWriter::start(io::stderr(), log.format, repeated.clone());
    let (subscriber, set_log) = subscriber(log, writer, io::stderr().is_terminal(), repeated);
    subscriber.init();
    (flush, set_log)
}

fn subscriber(
    log: &Log,
    writer: LogWriter,
    colours: bool,
    repeated: Repeated,
) -> (Box<dyn Subscriber + Send + Sync>, SetLog) {
    let builder = tracing_subscriber::fmt().with_env_filter(log.filter.to_env_filter());
    let builder = builder.with_writer(writer).with_ansi(colours);
    // Only lines that are written ask the filter: for all others each place of the sources knows
    // that its lines are not wanted.
    match log.format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let set_log = set_log(log.filter.clone(), move |filter| handle.reload(filter));
            (Box::new(builder.finish().with(repeated)), set_log)
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            let set_log = set_log(log.filter.clone(), move |filter| handle.reload(filter));
            (Box::new(builder.finish().with(repeated)), set_log)
        }
    }
}

/// Changes the level with `reload`; without a level to `usual`.
fn set_log(usual: LogFilter, reload: impl Fn(EnvFilter) -> Result<(), Error> + Send + Sync + 'static) -> SetLog {
    Arc::new(move |level| {
        let filter = match level {
            Some(level) => level.parse::<LogFilter>().map_err(|why| why.to_string())?,
            None => usual.clone(),
        };
        reload(filter.to_env_filter()).map_err(|why| why.to_string())
    })
}

fn write_all(queue: &Receiver<Item>, counts: &Counts, out: impl Write, format: LogFormat, repeated: &Repeated) {
    let mut lines = Lines { out, is_cut: false };
    let mut summed_up = Instant::now();
    loop {
        match queue.recv_timeout(SUMMARY_INTERVAL) {
            Ok(Item::Line(line)) => {
                let is_written = lines.write(&line);
                counts.queued.fetch_sub(line.len(), Relaxed);
                let lost = counts.lost.swap(0, Relaxed) + u64::from(!is_written);
                if lost > 0 && !(is_written && lines.write(note(LOST, lost, None, format).as_bytes())) {
                    counts.lost.fetch_add(lost, Relaxed);
                }
            }
            Ok(Item::Flush(done)) => _ = done.send(()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if summed_up.elapsed() >= SUMMARY_INTERVAL {
            summed_up = Instant::now();
            for (of, lines_left_out) in repeated.sum_up() {
                let line = note(LEFT_OUT, lines_left_out, Some(&of), format);
                counts.lost.fetch_add(u64::from(!lines.write(line.as_bytes())), Relaxed);
            }
        }
    }
}

/// Writes whole lines.
struct Lines<W> {
    out: W,
    /// A line that failed may be there in part: the next one must not stand behind that part.
    is_cut: bool,
}

impl<W: Write> Lines<W> {
    /// Returns whether the line is written.
    fn write(&mut self, line: &[u8]) -> bool {
        let is_written = (!self.is_cut || self.out.write_all(b"\n").is_ok()) && self.out.write_all(line).is_ok();
        self.is_cut = !is_written;
        is_written
    }
}

const LOST: &str = "lines of the log were lost";
const LEFT_OUT: &str = "lines of one kind were left out";

/// The line that tells how many lines are missing, and of which kind.
fn note(message: &str, count: u64, of: Option<&str>, format: LogFormat) -> String {
    match format {
        LogFormat::Text => match of {
            None => format!("{count} {message}\n"),
            Some(of) => format!("{count} {message}: {of}\n"),
        },
        LogFormat::Json => {
            let mut now = String::new();
            _ = SystemTime.format_time(&mut Writer::new(&mut now));
            let fields = match of {
                None => json!({ "message": message, "lost": count }),
                Some(of) => json!({ "message": message, "left_out": count, "kind": of }),
            };
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
        let (mut writer, flush) =
            LogWriter::start(Slow { written: written.clone(), permits }, LogFormat::Text, Repeated::default());
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
        let repeated = Repeated::default();
        let slow = Slow { written: written.clone(), permits };
        let (writer, flush) = LogWriter::start(slow, format, repeated.clone());
        let log = Log { format, filter: "debug".parse().unwrap(), ..Log::default() };
        tracing::subscriber::with_default(subscriber(&log, writer, false, repeated).0, told);
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
    fn a_node_that_says_the_same_all_night_does_not_fill_the_log() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let lines = lines_after_a_stall(format, || {
                for _ in 0..1000 {
                    tracing::warn!("a stream of events is lost");
                }
            });
            let written = lines.iter().filter(|line| line.contains("a stream of events is lost")).count();
            assert!((200..=202).contains(&written), "{written}");
        }
    }

    /// C16: the level changes while the proxy runs, and goes back to that of the settings.
    #[test]
    fn the_level_of_a_running_log_can_be_changed() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let written = Arc::new(Mutex::new(Vec::new()));
            let (_, permits) = sync_channel(8);
            let (writer, flush) =
                LogWriter::start(Slow { written: written.clone(), permits }, format, Repeated::default());
            let log = Log { format, filter: "warn".parse().unwrap(), ..Log::default() };
            let (subscriber, set_log) = subscriber(&log, writer, false, Repeated::default());
            let tell = |word: &str| {
                tracing::debug!(word, "a detail");
                tracing::info!(word, "a line");
                tracing::warn!(word, "a warning");
            };
            tracing::subscriber::with_default(subscriber, || {
                tell("first");
                set_log(Some("debug")).unwrap();
                tell("second");
                assert!(set_log(Some("loud")).is_err());
                set_log(None).unwrap();
                tell("third");
            });
            drop(flush);
            let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
            let words: Vec<_> = ["first", "second", "third"].map(|word| text.matches(word).count()).to_vec();
            assert_eq!(words, [1, 3, 1], "{text}");
        }
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
        let (mut writer, flush) = LogWriter::start(Half(written.clone(), 0), LogFormat::Text, Repeated::default());
        writer.write_all(b"first\n").unwrap();
        writer.write_all(b"second\n").unwrap();
        drop(flush);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "fir\nsecond\n1 lines of the log were lost\n");
    }
}
