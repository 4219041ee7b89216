//! The bytes of an answer that are in memory. Most answers are one piece.

use std::{collections::VecDeque, ops::Range};

use bytes::{Bytes, BytesMut};

/// Up to this many bytes are copied to stay one piece; a longer piece is cut without a copy.
const SHORT: usize = 4096;

/// How many pieces an answer of more than one has room for at first.
const MANY: usize = 16;

/// Bytes in pieces, none of which is empty.
#[derive(Debug, Default)]
pub struct Pieces {
    first: Bytes,
    more: VecDeque<Bytes>,
    length: usize,
}

impl From<Bytes> for Pieces {
    fn from(first: Bytes) -> Self {
        Self { length: first.len(), first, more: VecDeque::new() }
    }
}

impl Pieces {
    /// The number of bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The first piece, which is empty where there is none.
    pub fn first(&self) -> &Bytes {
        &self.first
    }

    /// The pieces behind the first.
    pub fn more(&self) -> &VecDeque<Bytes> {
        &self.more
    }

    /// All pieces; a first one, which may be empty, at least.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// Puts a piece behind the others.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.length += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else {
            append(&mut self.more, piece);
        }
    }

    /// Takes the first piece.
    pub fn pop(&mut self) -> Option<Bytes> {
        if self.first.is_empty() {
            return None;
        }
        let piece = std::mem::replace(&mut self.first, self.more.pop_front().unwrap_or_default());
        self.length -= piece.len();
        Some(piece)
    }

    /// Makes one piece of the first `limit` bytes or more.
    pub fn join(&mut self, limit: usize) -> &Bytes {
        if self.first.len() < limit && !self.more.is_empty() {
            let mut joined = BytesMut::with_capacity(limit.min(self.length));
            joined.extend_from_slice(&self.first);
            while joined.len() < limit
                && let Some(piece) = self.more.pop_front()
            {
                joined.extend_from_slice(&piece);
            }
            self.first = joined.freeze();
        }
        &self.first
    }

    /// The last `count` bytes, or all if there are fewer, in one piece.
    pub fn tail(&self, count: usize) -> Bytes {
        let last = self.more.back().unwrap_or(&self.first);
        if last.len() >= count {
            return last.slice(last.len() - count..);
        }
        let mut left = count.min(self.length);
        let mut parts = Vec::new();
        for piece in self.iter().rev() {
            let taken = left.min(piece.len());
            parts.push(&piece[piece.len() - taken..]);
            left -= taken;
            if left == 0 {
                break;
            }
        }
        parts.reverse();
        parts.concat().into()
    }

    /// Puts `with` in the place of `range`.
    pub fn replace(&mut self, range: Range<usize>, with: &[u8]) {
        if range.end <= self.first.len() && !self.first.is_empty() {
            self.replace_in_first(range, with);
            return;
        }
        let mut made = Self::default();
        let mut start = 0;
        let mut middle = Some(with);
        while let Some(piece) = self.pop() {
            let end = start + piece.len();
            let place = |at: usize| at.clamp(start, end) - start;
            let (from, to) = (place(range.start), place(range.end));
            if range.start > end || range.end < start || (middle.is_none() && to == 0) {
                made.push(piece);
            } else if piece.len() <= SHORT {
                let middle = if range.start < end || piece.is_empty() { middle.take() } else { None };
                made.push([&piece[..from], middle.unwrap_or_default(), &piece[to..]].concat().into());
            } else {
                let taken = if range.start < end { middle.take() } else { None };
                let cut =
                    [piece.slice(..from), taken.map_or_else(Bytes::new, Bytes::copy_from_slice), piece.slice(to..)];
                cut.into_iter().filter(|part| !part.is_empty()).for_each(|part| made.push(part));
            }
            start = end;
        }
        *self = made;
    }

    /// Replaces a range of the first piece, where the id of most answers is. The other pieces, of
    /// which a long answer has many, are not moved.
    fn replace_in_first(&mut self, range: Range<usize>, with: &[u8]) {
        self.length = self.length - range.len() + with.len();
        let (before, after) = (&self.first[..range.start], &self.first[range.end..]);
        if self.first.len() <= SHORT {
            let mut made = Vec::with_capacity(before.len() + with.len() + after.len());
            for part in [before, with, after] {
                made.extend_from_slice(part);
            }
            self.first = made.into();
            return;
        }
        let parts = [self.first.slice(range.end..), Bytes::copy_from_slice(with), self.first.slice(..range.start)];
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            self.more.push_front(part);
        }
        self.first = self.more.pop_front().unwrap_or_default();
    }
}

/// Puts a piece behind the others. Short pieces become one piece, so that bytes which come one by
/// one take no more room than their number.
pub fn append(pieces: &mut VecDeque<Bytes>, piece: Bytes) {
    match pieces.back_mut() {
        Some(last) if last.len() + piece.len() <= SHORT => {
            let begun = std::mem::take(last);
            let mut both = begun.try_into_mut().unwrap_or_else(|begun| BytesMut::from(&begun[..]));
            both.extend_from_slice(&piece);
            *last = both.freeze();
        }
        Some(_) => pieces.push_back(piece),
        // Behind a second piece there are often more.
        None => {
            pieces.reserve(MANY);
            pieces.push_back(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str, step: usize) -> Pieces {
        let mut pieces = Pieces::default();
        text.as_bytes().chunks(step).for_each(|piece| pieces.push(Bytes::copy_from_slice(piece)));
        pieces
    }

    fn text(pieces: &Pieces) -> String {
        String::from_utf8(pieces.iter().flatten().copied().collect()).unwrap()
    }

    #[test]
    fn a_part_is_replaced_however_the_bytes_are_cut() {
        let long = "x".repeat(10_000);
        for base in ["abcdefghij", &long] {
            for step in [1, 3, 5, 4999, 20_000] {
                for range in [0..0, 0..3, 1..1, 2..9, 4..6, 7..10, 10..10] {
                    if range.end == base.len() && range.start == range.end {
                        continue;
                    }
                    let mut all = pieces(base, step);
                    all.replace(range.clone(), b"<->");
                    let mut expected = base.to_owned();
                    expected.replace_range(range.clone(), "<->");
                    assert_eq!(text(&all), expected, "{range:?} by {step}");
                    assert_eq!(all.length(), expected.len());
                    // An empty piece would be taken for the end.
                    let taken: Vec<u8> = std::iter::from_fn(|| all.pop()).flatten().collect();
                    assert_eq!(taken, expected.as_bytes(), "{range:?} by {step}");
                }
            }
        }
    }

    #[test]
    fn the_tail_and_the_beginning_are_had_in_one_piece() {
        for step in [1, 4, 10] {
            for count in 0..12 {
                let mut all = pieces("abcdefghij", step);
                assert_eq!(all.tail(count), b"abcdefghij"[10 - count.min(10)..]);
                assert!("abcdefghij".as_bytes().starts_with(all.join(count)) && all.first().len() >= count.min(10));
                assert_eq!(text(&all), "abcdefghij");
            }
        }
    }
}
