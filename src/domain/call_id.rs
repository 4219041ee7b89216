//! The proxy's own ids of calls to nodes. The client's id never goes to a node, so no node can
//! change the id, and an answer is accepted only by its own call.

use std::ops::Range;

/// The most digits that an id has.
const DIGITS: usize = 20;

/// The id of one call to one node, in JSON: a number in decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId {
    digits: [u8; DIGITS],
    start: usize,
}

impl CallId {
    /// The id with this number.
    pub fn new(mut number: u64) -> Self {
        let mut digits = [b'0'; DIGITS];
        let mut start = DIGITS;
        // Two digits for each division, which is what costs.
        while number >= 10 {
            start -= 2;
            let pair = (number % 100) as u8;
            (digits[start], digits[start + 1]) = (b'0' + pair / 10, b'0' + pair % 10);
            number /= 100;
        }
        if number > 0 || start == DIGITS {
            start -= 1;
            digits[start] = b'0' + number as u8;
        }
        Self { digits, start }
    }

    /// Whether an answer with the id `written` belongs to this call. A node writes `null` where it
    /// could not read the id.
    pub fn is_answered_by(&self, written: &[u8]) -> bool {
        written == self.as_bytes() || written == b"null"
    }

    /// The id's digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// A request object for a node: the client's bytes, but for the id.
#[derive(Clone, Copy, Debug)]
pub struct Outbound<'a>(pub [&'a [u8]; 3]);

impl<'a> Outbound<'a> {
    /// `raw` with `own` in the place of the id at `id`; a notification has no id and stays
    /// unchanged.
    pub fn new(raw: &'a [u8], id: Option<Range<usize>>, own: &'a CallId) -> Self {
        match id {
            Some(id) => Self([&raw[..id.start], own.as_bytes(), &raw[id.end..]]),
            None => Self::plain(raw),
        }
    }

    /// `text` unchanged.
    pub fn plain(text: &'a [u8]) -> Self {
        Self([text, b"", b""])
    }

    /// Bytes in all.
    pub fn length(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_number_in_decimal() {
        for number in [0, 7, 10, 65_536, u64::MAX] {
            assert_eq!(CallId::new(number).as_bytes(), number.to_string().as_bytes());
        }
    }

    #[test]
    fn only_the_id_is_replaced() {
        let own = CallId::new(12);
        for (raw, id, sent) in [
            (r#"{"id":"a","method":"m"}"#, Some(6..9), r#"{"id":12,"method":"m"}"#),
            (r#"{"method":"m","id":null}"#, Some(19..23), r#"{"method":"m","id":12}"#),
            (r#"{"method":"m"}"#, None, r#"{"method":"m"}"#),
        ] {
            let outbound = Outbound::new(raw.as_bytes(), id, &own);
            assert_eq!(String::from_utf8(outbound.0.concat()).unwrap(), sent);
            assert_eq!(outbound.length(), sent.len());
        }
    }
}
