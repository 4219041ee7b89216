//! The way of one request of a client, noted for its line in the access log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::metrics::CallOutcome;

/// Bytes of the value of a header that names a request, at most. A longer value goes to no line of
/// the log, and with a call to no node.
pub const MAX_TRACE: usize = 256;

/// The notes on one request, which may be a batch of calls.
#[derive(Debug, Default)]
pub struct Trace(Mutex<Notes>);

/// The notes: each value stands there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The methods, or groups of routes.
    pub methods: Vec<&'static str>,
    /// The nodes that were asked, in the order of their first attempts.
    pub nodes: Vec<Arc<str>>,
    /// The outcomes of the calls.
    pub outcomes: Vec<CallOutcome>,
}

impl Trace {
    /// A node is asked.
    pub fn asked(&self, node: &Arc<str>) {
        add(&mut self.lock().nodes, node.clone());
    }

    /// A call ended so.
    pub fn ended(&self, method: &'static str, outcome: CallOutcome) {
        let mut notes = self.lock();
        add(&mut notes.methods, method);
        add(&mut notes.outcomes, outcome);
    }

    /// The notes so far.
    pub fn notes(&self) -> Notes {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add<T: PartialEq>(all: &mut Vec<T>, value: T) {
    if !all.contains(&value) {
        all.push(value);
    }
}

/// The value of the header `name` among lines as they go to nodes.
pub fn value_of<'l>(lines: &'l [u8], name: &str) -> Option<&'l [u8]> {
    lines.split(|&byte| byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let value = line[colon + 1..].trim_ascii();
        line[..colon].eq_ignore_ascii_case(name.as_bytes()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_among_the_lines_whatever_its_case() {
        let lines = b"X-Request-Id: a:b\r\ntraceparent: 00-1-2-01\r\n";
        assert_eq!(value_of(lines, "x-request-id"), Some(&b"a:b"[..]));
        assert_eq!(value_of(lines, "traceparent"), Some(&b"00-1-2-01"[..]));
        assert_eq!((value_of(lines, "tracestate"), value_of(b"", "a")), (None, None));
    }

    #[test]
    fn each_note_stands_once() {
        let trace = Trace::default();
        let node: Arc<str> = "el-1".into();
        for outcome in [CallOutcome::Result, CallOutcome::NoNode, CallOutcome::Result] {
            trace.asked(&node);
            trace.ended("eth_call", outcome);
        }
        let outcomes = vec![CallOutcome::Result, CallOutcome::NoNode];
        assert_eq!(trace.notes(), Notes { methods: vec!["eth_call"], nodes: vec![node], outcomes });
    }
}
