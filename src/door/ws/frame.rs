//! The WebSocket framing of RFC 6455, as a server needs it: heads, masks and close codes. No I/O.

use std::ops::RangeInclusive;

/// Why a client is closed when memory has no room for its bytes.
pub(super) const NO_ROOM: &str = "max_client_memory is reached: try again";
/// The longest payload of a control frame, in bytes.
const MAX_CONTROL: usize = 125;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    fn of(nibble: u8) -> Option<Self> {
        Some(match nibble {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    pub(super) fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// Why a connection is closed: the code for the wire, and words for the client's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) code: u16,
    pub(super) reason: &'static str,
}

impl Closing {
    pub(super) const PROTOCOL: u16 = 1002;
    pub(super) const NOT_UTF8: u16 = 1007;
    pub(super) const POLICY: u16 = 1008;
    pub(super) const TOO_BIG: u16 = 1009;
    pub(super) const RESTART: u16 = 1012;
    pub(super) const TRY_AGAIN: u16 = 1013;

    pub(super) const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }

    fn protocol(reason: &'static str) -> Self {
        Self::new(Self::PROTOCOL, reason)
    }
}

/// The head of a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) opcode: Opcode,
    /// Whether this is the last frame of its message.
    pub(super) is_final: bool,
    pub(super) mask: [u8; 4],
    /// Bytes of payload.
    pub(super) length: u64,
}

impl Head {
    /// Reads the head at the beginning of `bytes`; also returns the head's length. `None` where the
    /// head is not whole.
    ///
    /// # Errors
    /// When no client may send this frame.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Closing> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let opcode = Opcode::of(first & 0x0f).ok_or_else(|| Closing::protocol("unknown opcode"))?;
        let is_final = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return Err(Closing::protocol("reserved bits are set"));
        }
        if second & 0x80 == 0 {
            return Err(Closing::protocol("a client's frames are masked"));
        }
        let short = second & 0x7f;
        if opcode.is_control() && (!is_final || usize::from(short) > MAX_CONTROL) {
            return Err(Closing::protocol("a control frame is short and in one piece"));
        }
        let Some((length, rest)) = read_length(short, rest) else { return Ok(None) };
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        Ok(Some((Self { opcode, is_final, mask: *mask, length }, bytes.len() - rest.len())))
    }
}

/// The extent of a frame, also of a frame that breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) is_close: bool,
    /// Bytes of the head.
    pub(super) head: usize,
    /// Bytes of the payload.
    pub(super) payload: u64,
}

impl Outline {
    /// Reads the extent from the head at the beginning of `bytes`; `None` where the head is not
    /// whole.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = bytes else { return None };
        let (payload, rest) = read_length(second & 0x7f, rest)?;
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let left = rest.len().checked_sub(mask)?;
        Some(Self { is_close: first & 0x0f == Opcode::Close as u8, head: bytes.len() - left, payload })
    }
}

/// The length of a payload, and the bytes behind the length; `short` is the length in the second
/// byte.
fn read_length(short: u8, rest: &[u8]) -> Option<(u64, &[u8])> {
    match short {
        126 => rest.split_first_chunk::<2>().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest)),
        127 => rest.split_first_chunk::<8>().map(|(length, rest)| (u64::from_be_bytes(*length), rest)),
        short => Some((u64::from(short), rest)),
    }
}

/// Appends the head of a frame that is a whole message of the proxy's.
pub(super) fn put_head(out: &mut Vec<u8>, opcode: Opcode, length: usize) {
    out.push(0x80 | opcode as u8);
    match length {
        0..=125 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Takes the mask off `payload`, which begins with its frame's first byte.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let twice = u64::from(u32::from_ne_bytes(mask));
    let wide = twice | twice << 32;
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let plain = u64::from_ne_bytes(word.as_array().copied().unwrap_or_default()) ^ wide;
        word.copy_from_slice(&plain.to_ne_bytes());
    }
    words.into_remainder().iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// Reads the payload of a client's close frame: the code to answer with, if the client gave one.
///
/// # Errors
/// When the answer must have another code.
pub(super) fn read_close(payload: &[u8]) -> Result<Option<u16>, Closing> {
    const ALLOWED: [RangeInclusive<u16>; 3] = [1000..=1003, 1007..=1014, 3000..=4999];
    match payload {
        [] => Ok(None),
        [_] => Err(Closing::protocol("half a close code")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !ALLOWED.iter().any(|range| range.contains(&code)) {
                return Err(Closing::protocol("not a close code"));
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(Closing::new(Closing::NOT_UTF8, "the reason is not UTF-8"));
            }
            Ok(Some(code))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_at_any_length_and_any_cut() {
        for (length, bytes) in [
            (0, &[0x81, 0x80][..]),
            (125, &[0x81, 0xfd]),
            (126, &[0x81, 0xfe, 0, 126]),
            (0xffff, &[0x81, 0xfe, 0xff, 0xff]),
            (0x1_0000, &[0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]),
            (u64::MAX, &[0x81, 0xff, 255, 255, 255, 255, 255, 255, 255, 255]),
        ] {
            let whole = [bytes, &[1, 2, 3, 4]].concat();
            for cut in 0..whole.len() {
                assert_eq!(Head::read(&whole[..cut]), Ok(None), "{length} cut at {cut}");
            }
            let head = Head { opcode: Opcode::Text, is_final: true, mask: [1, 2, 3, 4], length };
            assert_eq!(Head::read(&[&whole[..], b"payload"].concat()), Ok(Some((head, whole.len()))));
            if let Ok(length) = usize::try_from(length) {
                let mut ours = Vec::new();
                put_head(&mut ours, Opcode::Text, length);
                assert_eq!((ours[0], ours[1] | 0x80, &ours[2..]), (bytes[0], bytes[1], &bytes[2..]));
            }
        }
    }

    #[test]
    fn frames_that_no_client_may_send_are_refused() {
        for (bytes, why) in [
            ([0x81, 0x01], "not masked"),
            ([0xc1, 0x81], "reserved bit"),
            ([0x83, 0x81], "reserved opcode"),
            ([0x8b, 0x81], "reserved control opcode"),
            ([0x09, 0x81], "a ping in pieces"),
            ([0x88, 0xfe], "a long close"),
        ] {
            assert_eq!(Head::read(&bytes).unwrap_err().code, Closing::PROTOCOL, "{why}");
        }
    }

    #[test]
    fn the_outline_of_a_frame_is_seen_whatever_is_wrong_with_it() {
        for (bytes, is_close, head, payload) in [
            (&[0x81, 0x85, 1, 2, 3, 4][..], false, 6, 5),
            (&[0xf1, 0x05], false, 2, 5),
            (&[0x03, 0xfe, 1, 0, 1, 2, 3, 4], false, 8, 256),
            (&[0x88, 0x80, 1, 2, 3, 4], true, 6, 0),
            (&[0x08, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4], true, 14, 1 << 32),
            (&[0xf8, 0x00], true, 2, 0),
        ] {
            assert_eq!(Outline::read(bytes), Some(Outline { is_close, head, payload }), "{bytes:?}");
            assert_eq!(Outline::read(&[bytes, b"more"].concat()), Some(Outline { is_close, head, payload }));
            (0..bytes.len()).for_each(|cut| assert_eq!(Outline::read(&bytes[..cut]), None, "{bytes:?} cut at {cut}"));
        }
    }

    #[test]
    fn a_mask_comes_off_at_every_length() {
        let mask = [0x6d, 0xb6, 0x02, 0x80];
        for length in 0..40 {
            let plain: Vec<u8> = (0..length).collect();
            let mut masked: Vec<u8> = plain.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            unmask(&mut masked, mask);
            assert_eq!(masked, plain);
        }
    }

    #[test]
    fn only_codes_that_may_be_on_the_wire_are_answered() {
        assert_eq!(read_close(&[]), Ok(None));
        for (code, allowed) in [
            (999, false),
            (1000, true),
            (1005, false),
            (1006, false),
            (1012, true),
            (1015, false),
            (2999, false),
            (3000, true),
            (4999, true),
            (5000, false),
        ] {
            let code: u16 = code;
            assert_eq!(read_close(&code.to_be_bytes()).is_ok(), allowed, "{code}");
        }
        assert_eq!(read_close(&[3]).unwrap_err().code, Closing::PROTOCOL);
        assert_eq!(read_close(&[3, 232, 0xff]).unwrap_err().code, Closing::NOT_UTF8);
    }
}
