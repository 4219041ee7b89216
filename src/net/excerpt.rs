//! The beginning and the end of a message that is too long to be kept. Either has the id of
//! the call that the message answers.

use std::io;

use bytes::Bytes;

/// How much is kept of each end.
const EXCERPT_PART: usize = 4 << 10;
/// The longest message that is read to its end. A longer one ends the connection.
pub(super) const MAX_MESSAGE: u64 = 4 << 30;

/// The parts of a message that are kept while its pieces pass.
#[derive(Debug, Default)]
pub(super) struct Excerpt {
    beginning: Vec<u8>,
    /// The last bytes behind the beginning, and up to as many again before them.
    end: Vec<u8>,
    /// The length of all pieces.
    length: u64,
}

impl Excerpt {
    /// Takes the next piece of the message.
    ///
    /// # Errors
    /// When the message is longer than [`MAX_MESSAGE`].
    pub(super) fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        self.length = self.length.saturating_add(piece.len() as u64);
        if self.length > MAX_MESSAGE {
            return Err(io::Error::other(format!(
                "the node's message is over the limit: more than {MAX_MESSAGE} bytes"
            )));
        }
        let (first, others) = piece.split_at(piece.len().min(EXCERPT_PART - self.beginning.len()));
        self.beginning.extend_from_slice(first);
        let new = &others[others.len().saturating_sub(EXCERPT_PART)..];
        if self.end.len() + new.len() > 2 * EXCERPT_PART {
            let old = self.end.len().saturating_sub(EXCERPT_PART - new.len());
            self.end.drain(..old);
        }
        self.end.extend_from_slice(new);
        Ok(())
    }

    /// The beginning and the end of the message, without anything between.
    pub(super) fn text(mut self) -> Bytes {
        self.beginning.extend_from_slice(&self.end[self.end.len().saturating_sub(EXCERPT_PART)..]);
        self.beginning.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_kept_however_the_message_comes() {
        let message: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
        for length in [0, 10, EXCERPT_PART, EXCERPT_PART + 10, 2 * EXCERPT_PART, 2 * EXCERPT_PART + 10, message.len()] {
            let message = &message[..length];
            let end = &message[length.saturating_sub(EXCERPT_PART).max(length.min(EXCERPT_PART))..];
            let expected = [&message[..length.min(EXCERPT_PART)], end].concat();
            for step in [1, 7, 1000, EXCERPT_PART, EXCERPT_PART + 1, 3 * EXCERPT_PART, message.len().max(1)] {
                let mut excerpt = Excerpt::default();
                message.chunks(step).for_each(|piece| excerpt.push(piece).unwrap());
                assert!(excerpt.end.len() <= 2 * EXCERPT_PART);
                assert!(excerpt.text() == expected, "{length} bytes by {step}");
            }
        }
    }
}
