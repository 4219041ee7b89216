//! A walk through an answer that passes in pieces, which finds where its id stands.

use std::ops::Range;

use super::{Escape, Next, Walk, skip_plain};

const KEY: &[u8] = b"id";

/// The place of the id as far as the pieces so far show it, in bytes from the answer's beginning.
#[derive(Clone, Debug, Default)]
pub struct Seek {
    walk: Walk,
    /// Bytes that have passed.
    passed: usize,
    /// How many bytes of [`KEY`] the present member's key has matched; `None` where the key is
    /// another.
    matched: Option<usize>,
    begun: Option<usize>,
    id: Option<Range<usize>>,
    closed: Option<usize>,
}

impl Seek {
    /// Takes the next piece. `false` when the answer can be no JSON any more, or has an id twice.
    pub fn pass(&mut self, piece: &[u8]) -> bool {
        let mut at = 0;
        while at < piece.len() {
            let (before, depth) = (self.walk.next, self.walk.open.depth);
            if let Next::String { is_key, escape: Escape::None } = before {
                let plain = skip_plain(piece, at);
                if is_key && depth == 1 {
                    self.name(&piece[at..plain]);
                }
                at = plain;
            }
            let Some(&byte) = piece.get(at) else { break };
            if self.walk.step(byte).is_none() || !self.note(before, depth, self.passed + at) {
                return false;
            }
            at += 1;
        }
        self.passed += piece.len();
        true
    }

    /// Bytes that have passed.
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// Where the id begins that has not ended yet.
    pub fn begun(&self) -> Option<usize> {
        self.begun
    }

    /// Where the id stands.
    pub fn id(&self) -> Option<Range<usize>> {
        self.id.clone()
    }

    /// Where the answer's closing brace stands.
    pub fn closed(&self) -> Option<usize> {
        self.closed
    }

    /// More of the key of a member.
    fn name(&mut self, part: &[u8]) {
        self.matched =
            self.matched.and_then(|matched| KEY[matched..].starts_with(part).then_some(matched + part.len()));
    }

    /// Takes note of the step that was made with the byte at `at`. `false` when a second id begins.
    fn note(&mut self, before: Next, depth: u32, at: usize) -> bool {
        let (after, is_top) = (self.walk.next, depth == 1);
        match (before, after) {
            (Next::Key | Next::KeyOrClose, Next::String { .. }) if is_top => self.matched = Some(0),
            // An escape within a key.
            (Next::String { is_key: true, .. }, Next::String { .. }) if is_top => self.matched = None,
            (Next::Value, Next::Value) => {}
            (Next::Value, _) if is_top && self.matched.take() == Some(KEY.len()) => {
                if self.id.is_some() {
                    return false;
                }
                self.begun = Some(at);
                return true;
            }
            _ => {}
        }
        if let Some(from) = self.begun {
            let end = match (before, after) {
                (Next::Number(_), Next::Number(_)) => None,
                (Next::Number(_), _) if is_top => Some(at),
                (_, Next::CommaOrClose) if self.walk.open.depth == 1 => Some(at + 1),
                _ => None,
            };
            if let Some(end) = end {
                (self.begun, self.id) = (None, Some(from..end));
            }
        }
        if is_top && self.walk.open.depth == 0 {
            self.closed = Some(at);
        }
        true
    }

    /// Whether the answer may end here.
    pub fn is_whole(&self) -> bool {
        self.walk.is_whole()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sought(text: &str, step: usize) -> Option<Seek> {
        let mut seek = Seek::default();
        text.as_bytes().chunks(step).all(|piece| seek.pass(piece)).then_some(seek)
    }

    #[test]
    fn the_id_of_an_answer_is_found_however_it_is_cut() {
        for (text, id) in [
            (r#"{"result":[1,2],"id":17,"more":{"id":5}}"#, Some("17")),
            (r#"{"result":{"id":5},"id":"a\"b" , "more":[{"id":6}]} "#, Some(r#""a\"b""#)),
            (r#"{ "result" : "id" , "id" : -1.5e3}"#, Some("-1.5e3")),
            (r#"{"id":null,"result":1}"#, Some("null")),
            (r#"{"result":1,"id":[1,{"id":2}]}"#, Some(r#"[1,{"id":2}]"#)),
            (r#"{"result":1,"id":{},"x":1}"#, Some("{}")),
            (r#"{"result":[["id",7]],"idx":5,"i":6,"":"id","d":7,"\u0069d":8}"#, None),
            (r#"{"result":{"a":{"id":5}},"x":[{"id":4}]}"#, None),
            (r#"[{"id":5},"id",6]"#, None),
        ] {
            for step in 1..=text.len() {
                let seek = sought(text, step).unwrap_or_else(|| panic!("{text} by {step}"));
                assert!(seek.is_whole() && seek.begun().is_none(), "{text} by {step}");
                assert_eq!(seek.id().map(|id| &text[id]), id, "{text} by {step}");
                assert_eq!(seek.closed(), Some(text.trim_end().len() - 1), "{text} by {step}");
            }
        }
    }

    #[test]
    fn a_second_id_or_what_is_no_json_ends_the_search() {
        for text in [r#"{"id":1,"result":2,"id":1}"#, r#"{"result":2,"id":"a","id":"b"}"#, r#"{"result":]}"#, "{}x"] {
            for step in 1..=text.len() {
                assert!(sought(text, step).is_none(), "{text} by {step}");
            }
        }
    }

    #[test]
    fn an_id_that_goes_on_is_known_to_have_begun() {
        let mut seek = Seek::default();
        assert!(seek.pass(br#"{"result":1,"id":12"#));
        assert_eq!((seek.begun(), seek.id()), (Some(17), None));
        assert!(seek.pass(b"34}"));
        assert_eq!((seek.begun(), seek.id(), seek.closed()), (None, Some(17..21), Some(21)));
    }
}
