//! The trace of a request, by W3C Trace Context: the header `traceparent`, by which a trace goes on
//! from one program to the next.

use std::{
    fmt,
    num::{NonZeroU64, NonZeroU128},
};

/// The flag of a trace whose caller records the trace.
const SAMPLED: u8 = 1;
/// The flags that go on to the next program: sampled, and that the id of the trace is random.
const KNOWN: u8 = 3;

/// The id of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(NonZeroU128);

/// The id of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    /// The id that was drawn by lot; `None` for the number that no trace has.
    pub fn new(drawn: u128) -> Option<Self> {
        NonZeroU128::new(drawn).map(Self)
    }

    /// The id in the form of collectors.
    pub fn bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }

    /// Whether the trace is recorded where one in `one_in` traces is; 0: none is. The lot is in the
    /// id, so that each program that asks has the same answer.
    pub fn is_drawn(self, one_in: u64) -> bool {
        // The lower seven bytes are those that must be random.
        const BITS: u32 = 56;
        let lot = (self.0.get() & ((1 << BITS) - 1)) as u64;
        one_in != 0 && lot <= ((1 << BITS) - 1) / one_in
    }
}

impl SpanId {
    /// The id that was drawn by lot; `None` for the number that no span has.
    pub fn new(drawn: u64) -> Option<Self> {
        NonZeroU64::new(drawn).map(Self)
    }

    /// The id in the form of collectors.
    pub fn bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

/// A value of `traceparent`: the trace, and the span under which the receiver's spans stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The span of the sender.
    pub span: SpanId,
    flags: u8,
}

impl TraceParent {
    /// The parent of a trace that begins here and is recorded.
    pub fn sampled(trace: TraceId, span: SpanId) -> Self {
        Self { trace, span, flags: SAMPLED }
    }

    /// Reads a header's value; `None` for a value that a receiver must not use.
    pub fn read(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let version = hex(text.get(..2)?)?;
        // Later versions may add fields at the end.
        let ends = text.len() == 55 || (version > 0 && text.as_bytes().get(55) == Some(&b'-'));
        if version == 0xff || !ends {
            return None;
        }
        let mut fields = text.get(3..55)?.split('-');
        let mut field = |length| fields.next().filter(|field| field.len() == length).and_then(hex);
        let (trace, span, flags) = (field(32)?, field(16)?, field(2)?);
        let has_dash = text.as_bytes()[2] == b'-' && fields.next().is_none();
        let span = SpanId::new(u64::try_from(span).ok()?)?;
        has_dash.then_some(Self { trace: TraceId::new(trace)?, span, flags: u8::try_from(flags).ok()? & KNOWN })
    }

    /// Whether the sender records the trace.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags that both sides know.
    pub fn flags(self) -> u8 {
        self.flags
    }

    /// The same trace under another span.
    pub fn under(self, span: SpanId) -> Self {
        Self { span, ..self }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace.0, self.span.0, self.flags)
    }
}

/// The value of lower-case hexadecimal digits.
fn hex(text: &str) -> Option<u128> {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.bytes().all(is_digit).then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_parent_is_read_and_written_alike() {
        for (flags, sampled) in [("01", true), ("00", false), ("03", true), ("02", false)] {
            let text = format!("00-{TRACE}-{SPAN}-{flags}");
            let parent = TraceParent::read(text.as_bytes()).unwrap();
            assert_eq!((parent.to_string(), parent.is_sampled()), (text, sampled));
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for text in [format!("01-{TRACE}-{SPAN}-01"), format!("cc-{TRACE}-{SPAN}-fd-more")] {
            let parent = TraceParent::read(text.as_bytes()).unwrap();
            assert_eq!(parent.to_string(), format!("00-{TRACE}-{SPAN}-01"));
        }
    }

    #[test]
    fn a_malformed_parent_is_none() {
        let zero = "0".repeat(32);
        for text in [
            String::new(),
            "00-abc-def-01".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("01-{TRACE}-{SPAN}-01.more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{zero}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zero[..16]),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{SPAN}-{TRACE}-01"),
            format!("00-{TRACE}-+0f067aa0ba902b7-01"),
            format!("00-{}é-{SPAN}-01", &TRACE[2..]),
        ] {
            assert_eq!(TraceParent::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_lot_of_a_trace_is_in_its_id() {
        let drawn = |id: u128, one_in| TraceId::new(id).unwrap().is_drawn(one_in);
        let (first, last) = (1 << 100, (1 << 100) | ((1 << 56) - 1));
        assert_eq!([0, 1, 2, 1000].map(|one_in| drawn(first, one_in)), [false, true, true, true]);
        assert_eq!([0, 1, 2, 1000].map(|one_in| drawn(last, one_in)), [false, true, false, false]);
        let every: Vec<u128> = (0..100).map(|part| (1 << 100) | (part << 49)).collect();
        assert_eq!(every.iter().filter(|id| drawn(**id, 4)).count(), 32);
    }
}
