//! Puts the client's id into a response while it streams by, wherever among the members the node wrote its own.

use bytes::{Bytes, BytesMut};

/// A walk over the bytes of a JSON object that replaces the value of its member `id`. What is inside the other members is stepped
/// over, and what is not JSON passes as it is.
#[derive(Debug)]
pub struct IdSplice {
    id: Bytes,
    /// How many objects and arrays are open.
    depth: u32,
    string: Option<Escape>,
    member: Member,
    /// The key that is being read, as far as it could still be `id`.
    key: [u8; 3],
    key_length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    No,
    Next,
}

/// Where in a member of the outermost object the walk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Key,
    Value,
    /// Before the first byte of the node's id.
    BeforeId,
    /// Inside it.
    Id,
}

impl IdSplice {
    /// Will write `id`.
    pub fn new(id: &[u8]) -> Self {
        let id = Bytes::copy_from_slice(id);
        Self { id, depth: 0, string: None, member: Member::Key, key: [0; 3], key_length: 0 }
    }

    /// The next piece of the response, with the id put right. Pieces may be cut anywhere.
    pub fn pass(&mut self, piece: Bytes) -> Bytes {
        let mut out: Option<BytesMut> = None;
        // What stands before this has been dealt with.
        let mut from = 0;
        for (at, &byte) in piece.iter().enumerate() {
            let was = self.member;
            self.step(byte);
            match (was, self.member) {
                (Member::BeforeId, Member::Id) => {
                    let out = out.get_or_insert_default();
                    out.extend_from_slice(&piece[from..at]);
                    out.extend_from_slice(&self.id);
                    from = at + 1;
                }
                (Member::Id, Member::Id) => from = at + 1,
                _ => {}
            }
        }
        match out {
            None => piece.slice(from..),
            Some(mut out) => {
                out.extend_from_slice(&piece[from..]);
                out.freeze()
            }
        }
    }

    fn step(&mut self, byte: u8) {
        match (self.string, byte) {
            (Some(Escape::Next), _) => self.string = Some(Escape::No),
            (Some(Escape::No), b'\\') => self.string = Some(Escape::Next),
            (Some(Escape::No), b'"') => self.string = None,
            (Some(Escape::No), _) => {}
            (None, byte) => return self.outside(byte),
        }
        if self.string.is_some() && self.depth == 1 && self.member == Member::Key {
            if let Some(place) = self.key.get_mut(self.key_length) {
                *place = byte;
            }
            self.key_length += 1;
        }
    }

    fn outside(&mut self, byte: u8) {
        let outermost = self.depth == 1;
        match byte {
            b'"' => {
                self.string = Some(Escape::No);
                self.key_length = 0;
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b':' if outermost && self.member == Member::Key => {
                let is_id = self.key_length == 2 && self.key.starts_with(b"id");
                self.member = if is_id { Member::BeforeId } else { Member::Value };
                return;
            }
            _ => {}
        }
        self.member = match (self.member, byte) {
            (Member::Value | Member::Id, b',') if outermost => Member::Key,
            (Member::Id, b'}' | b' ' | b'\t' | b'\r' | b'\n') if outermost => Member::Value,
            (Member::BeforeId, b' ' | b'\t' | b'\r' | b'\n') => Member::BeforeId,
            (Member::BeforeId, _) => Member::Id,
            (member, _) => member,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splice(text: &str, step: usize) -> String {
        let mut splice = IdSplice::new(b"1.50");
        let pieces = text.as_bytes().chunks(step).map(|piece| splice.pass(Bytes::copy_from_slice(piece)));
        String::from_utf8(pieces.collect::<Vec<_>>().concat()).unwrap()
    }

    #[test]
    fn the_id_is_replaced_wherever_it_stands_and_however_the_bytes_are_cut() {
        for (text, expected) in [
            (r#"{"id":1,"result":2}"#, r#"{"id":1.50,"result":2}"#),
            (r#"{"result":[1,{"id":2}],"id":"a\"b,}"}"#, r#"{"result":[1,{"id":2}],"id":1.50}"#),
            (
                r#" { "result" : "\"id\":5" , "id" : null , "jsonrpc":"2.0"} "#,
                r#" { "result" : "\"id\":5" , "id" : 1.50 , "jsonrpc":"2.0"} "#,
            ),
            (
                r#"{"result":{},"id":-1e5,"more":{"id":[]},"id2":3,"xid":4,"i":5}"#,
                r#"{"result":{},"id":1.50,"more":{"id":[]},"id2":3,"xid":4,"i":5}"#,
            ),
            (r#"{"result":"id","id":7}"#, r#"{"result":"id","id":1.50}"#),
            (r#"{"result":1}"#, r#"{"result":1}"#),
            (r#"[{"id":1}]"#, r#"[{"id":1}]"#),
            ("not json", "not json"),
        ] {
            for step in 1..=text.len() {
                assert_eq!(splice(text, step), expected, "{text} by {step}");
            }
        }
    }
}
