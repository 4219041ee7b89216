//! Server-sent events as bytes: cuts a stream into its events. Pure.
//!
//! An event keeps its bytes, so that an event that passes through is not rewritten. Comments are
//! left out: nodes send them to keep their streams alive, and the proxy sends clients its own.

use bytes::{Bytes, BytesMut};

/// The longest event accepted, in bytes: an attester slashing may name every validator of a slot
/// twice.
pub const MAX_EVENT: usize = 8 << 20;

/// A server-sent event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The topic: the value of `event:`, or `message` without such a line.
    pub topic: String,
    /// Its data, lines joined by line feeds.
    pub data: Bytes,
    /// The lines as they came, blank line included.
    pub raw: Bytes,
}

/// An event is longer than [`MAX_EVENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {MAX_EVENT} bytes")]
pub struct TooLong;

/// Cuts a stream into events, wherever its chunks are cut.
#[derive(Debug, Default)]
pub struct Parser {
    /// The line so far, without its end.
    line: BytesMut,
    raw: BytesMut,
    topic: Option<String>,
    data: Option<BytesMut>,
    /// A carriage return ended the last chunk: a line feed right behind belongs to that return.
    after_return: bool,
    begun: bool,
}

impl Parser {
    /// Takes the next chunk and gives `found` the events that the chunk completes.
    ///
    /// # Errors
    /// When an event is too long; the stream cannot be read on then.
    pub fn feed(&mut self, chunk: &[u8], mut found: impl FnMut(Event)) -> Result<(), TooLong> {
        let mut rest = chunk;
        if self.after_return && !rest.is_empty() {
            self.after_return = false;
            if let Some(after) = rest.strip_prefix(b"\n") {
                rest = after;
            }
        }
        while let Some(end) = rest.iter().position(|&b| b == b'\n' || b == b'\r') {
            self.line.extend_from_slice(&rest[..end]);
            let ended_by_return = rest[end] == b'\r';
            let paired = ended_by_return && rest.get(end + 1) == Some(&b'\n');
            self.after_return = ended_by_return && end + 1 == rest.len();
            let next = end + if paired { 2 } else { 1 };
            if let Some(event) = self.take_line(&rest[end..next]) {
                found(event);
            }
            rest = &rest[next..];
        }
        self.line.extend_from_slice(rest);
        if self.line.len() + self.raw.len() > MAX_EVENT { Err(TooLong) } else { Ok(()) }
    }

    fn take_line(&mut self, ending: &[u8]) -> Option<Event> {
        let mut line = self.line.split();
        if !std::mem::replace(&mut self.begun, true) && line.starts_with("\u{feff}".as_bytes()) {
            let _ = line.split_to(3);
        }
        if line.is_empty() {
            self.raw.extend_from_slice(ending);
            let (raw, topic) = (self.raw.split().freeze(), self.topic.take());
            // Without data there is no event, says the standard.
            let data = self.data.take()?.freeze();
            return Some(Event { topic: topic.unwrap_or_else(|| "message".to_owned()), data, raw });
        }
        let colon = line.iter().position(|&b| b == b':');
        if colon == Some(0) {
            return None;
        }
        self.raw.extend_from_slice(&line);
        self.raw.extend_from_slice(ending);
        let (name, value) = match colon {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (&line[..], &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"event" => self.topic = Some(String::from_utf8_lossy(value).into_owned()),
            b"data" => match &mut self.data {
                Some(data) => {
                    data.extend_from_slice(b"\n");
                    data.extend_from_slice(value);
                }
                None => self.data = Some(BytesMut::from(value)),
            },
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(chunks: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for chunk in chunks {
            parser.feed(chunk, |event| events.push(event)).unwrap();
        }
        events
    }

    fn event(topic: &str, data: &'static str, raw: &'static str) -> Event {
        Event { topic: topic.to_owned(), data: data.into(), raw: raw.into() }
    }

    #[test]
    fn events_are_cut_as_the_standard_has_them() {
        let cases: [(&'static str, Vec<Event>); 9] = [
            ("event: head\ndata: {}\n\n", vec![event("head", "{}", "event: head\ndata: {}\n\n")]),
            ("event:head\r\ndata:{}\r\n\r\n", vec![event("head", "{}", "event:head\r\ndata:{}\r\n\r\n")]),
            ("event: a\rdata: 1\r\r", vec![event("a", "1", "event: a\rdata: 1\r\r")]),
            (": alive\n\n:\n\n", vec![]),
            ("event: a\n: in between\ndata: 1\n\n", vec![event("a", "1", "event: a\ndata: 1\n\n")]),
            ("data: 1\ndata:  2\ndata\n\n", vec![event("message", "1\n 2\n", "data: 1\ndata:  2\ndata\n\n")]),
            ("event: lost\n\ndata: 1\n\n", vec![event("message", "1", "data: 1\n\n")]),
            (
                "id: 7\nretry: 1\nevent: b\ndata: x: y\n\n",
                vec![event("b", "x: y", "id: 7\nretry: 1\nevent: b\ndata: x: y\n\n")],
            ),
            ("event: a\ndata: not whole\n", vec![]),
        ];
        for (text, expected) in cases {
            assert_eq!(all(&[text.as_bytes()]), expected, "{text:?}");
        }
        assert_eq!(all(&["\u{feff}data: 1\n\n".as_bytes()])[0].data, "1");
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::default();
        let line = [&b"data: "[..], &vec![b'x'; 1 << 20], b"\n"].concat();
        let fed = (0..9).try_for_each(|_| parser.feed(&line, |_| {}));
        assert_eq!(fed, Err(TooLong));
    }

    proptest! {
        #[test]
        fn chunks_may_be_cut_anywhere(cuts in proptest::collection::vec(0_usize..80, 0..12)) {
            let text = b": hi\r\n\r\nevent: a\r\ndata: 1\r\ndata: 2\r\n\r\nevent: b\ndata: 3\n\ndata: 4\r\revent: c\rdata: 5\r\n\r\n";
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut chunks: Vec<&[u8]> = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&text[from..cut]);
                from = cut;
            }
            chunks.push(&text[from..]);
            let about = |events: Vec<Event>| -> Vec<(String, Bytes)> {
                events.into_iter().map(|event| (event.topic, event.data)).collect()
            };
            prop_assert_eq!(about(all(&chunks)), about(all(&[text])));
            prop_assert_eq!(all(&[text]).len(), 4);
        }
    }
}
