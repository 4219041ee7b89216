//! The lines that a test's own thread logs.

use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use steadfast::config::Log as Settings;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

/// The log of this thread, by the default filter, from its making to its end.
pub struct Log {
    written: Written,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn start() -> Self {
        let written = Written::default();
        let filter = Settings::default().filter.to_env_filter();
        let log = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(written.clone()).finish();
        Self { written, _guard: tracing::subscriber::set_default(log) }
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Value> {
        let bytes = self.written.0.lock().unwrap();
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// The fields of the lines with this message.
    pub fn saying(&self, message: &str) -> Vec<Value> {
        self.lines().into_iter().map(|line| line["fields"].clone()).filter(|line| line["message"] == message).collect()
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
