//! WebSocket frames, as little of them as the measurement's node and clients need: one message is one frame, and there are no
//! extensions. Both ends are written for cheapness; they share a core, and what they cost delays what is measured.

use std::{io, ops::Range};

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Any will do, but a zero would spare the other side its work.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame at the start of a buffer.
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Range<usize>,
}

/// The first frame of `buf` once it is all there, its payload without the mask.
pub(crate) fn read(buf: &mut [u8]) -> io::Result<Option<Frame>> {
    let [first, second, ..] = *buf else { return Ok(None) };
    if first & 0xf0 != 0x80 {
        return Err(io::Error::other("a fragment, or an extension that nobody asked for"));
    }
    let wide = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let masked = second & 0x80 != 0;
    let start = 2 + wide + if masked { 4 } else { 0 };
    if buf.len() < start {
        return Ok(None);
    }
    let length = match wide {
        0 => usize::from(second & 0x7f),
        _ => buf[2..2 + wide].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
    };
    if buf.len() - start < length {
        return Ok(None);
    }
    let (head, rest) = buf.split_at_mut(start);
    if masked {
        apply(&head[start - 4..], &mut rest[..length]);
    }
    Ok(Some(Frame { opcode: first & 0x0f, payload: start..start + length }))
}

/// Appends a frame; one to a server must be masked.
pub(crate) fn write(opcode: u8, payload: &[u8], masked: bool, out: &mut Vec<u8>) {
    let bit = if masked { 0x80 } else { 0 };
    out.push(0x80 | opcode);
    match payload.len() {
        n @ 0..126 => out.push(bit | n as u8),
        n @ 126..0x1_0000 => {
            out.push(bit | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(bit | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&MASK);
    }
    let start = out.len();
    out.extend_from_slice(payload);
    if masked {
        apply(&MASK, &mut out[start..]);
    }
}

fn apply(mask: &[u8], payload: &mut [u8]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}
