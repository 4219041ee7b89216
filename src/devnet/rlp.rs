//! Just enough of RLP to hash a header as nodes do.

/// A list being written.
#[derive(Default)]
pub(super) struct List(Vec<u8>);

impl List {
    /// Appends a byte string.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        match bytes {
            [byte] if *byte < 0x80 => self.0.push(*byte),
            _ => {
                prefix(&mut self.0, 0x80, bytes.len());
                self.0.extend_from_slice(bytes);
            }
        }
        self
    }

    /// Appends a number: big-endian without leading zeros.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        let bytes = number.to_be_bytes();
        let skip = usize::try_from(number.leading_zeros() / 8).unwrap_or(8);
        self.bytes(&bytes[skip..])
    }

    /// The whole list, with its length in front.
    pub(super) fn finish(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len() + 4);
        prefix(&mut out, 0xc0, self.0.len());
        out.extend_from_slice(&self.0);
        out
    }
}

fn prefix(out: &mut Vec<u8>, base: u8, len: usize) {
    match u8::try_from(len) {
        Ok(short) if short < 56 => out.push(base + short),
        _ => {
            let bytes = len.to_be_bytes();
            let digits: Vec<u8> = bytes.into_iter().skip_while(|b| *b == 0).collect();
            out.push(base + 55 + u8::try_from(digits.len()).unwrap_or(8));
            out.extend_from_slice(&digits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_specification_hold() {
        assert_eq!(List::default().finish(), [0xc0]);
        assert_eq!(List::default().bytes(b"cat").bytes(b"dog").finish(), *b"\xc8\x83cat\x83dog");
        assert_eq!(List::default().number(0).number(15).number(1024).finish(), [0xc5, 0x80, 0x0f, 0x82, 0x04, 0x00]);
        let long = List::default().bytes(&[b'a'; 56]).finish();
        assert_eq!(long[..4], [0xf8, 58, 0xb8, 56]);
    }
}
