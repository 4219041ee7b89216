//! An encoder of a bounded size, which is fed in slices.

use std::io::Write;

use bytes::{Buf, Bytes, BytesMut};
use flate2::write::GzEncoder;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, zstd_sys::ZSTD_EndDirective};

use super::Permit;
use crate::config::Coding;

/// Bytes that are compressed at a time; between two slices other clients have their turn.
const SLICE: usize = 16 * 1024;
/// zstd's window and tables, as powers of two. Its own choice for long answers takes megabytes.
const WINDOW: u32 = 16;
const TABLES: u32 = 15;
/// Room for the bytes that zstd makes at a time.
const OUT: usize = 16 * 1024;

/// Compresses an answer. An encoder takes less than a megabyte, whatever the answer's length.
pub(in super::super) struct Encoder {
    state: State,
    /// Bytes that are not compressed yet.
    left: Bytes,
    is_finished: bool,
    _permit: Permit,
}

enum State {
    Gzip(Box<GzEncoder<Vec<u8>>>),
    Zstd(CCtx<'static>),
}

impl Encoder {
    /// An encoder that `permit` allows; `None` where zstd has no memory for it.
    pub(super) fn new(coding: Coding, level: u8, permit: Permit) -> Option<Self> {
        let state = match coding {
            Coding::Gzip => State::Gzip(Box::new(GzEncoder::new(Vec::new(), flate2::Compression::new(level.into())))),
            Coding::Zstd => {
                let mut context = CCtx::try_create()?;
                for parameter in [
                    CParameter::CompressionLevel(level.into()),
                    CParameter::WindowLog(WINDOW),
                    CParameter::HashLog(TABLES),
                    CParameter::ChainLog(TABLES),
                ] {
                    context.set_parameter(parameter).ok()?;
                }
                State::Zstd(context)
            }
        };
        Some(Self { state, left: Bytes::new(), is_finished: false, _permit: permit })
    }

    /// Whether the encoder wants more of the answer.
    pub(in super::super) fn is_hungry(&self) -> bool {
        self.left.is_empty() && !self.is_finished
    }

    pub(in super::super) fn is_finished(&self) -> bool {
        self.is_finished && self.left.is_empty()
    }

    /// Takes in the next piece of the answer, after the piece before was compressed.
    pub(in super::super) fn feed(&mut self, piece: Bytes) {
        self.left = piece;
    }

    /// Compresses a slice. Returns the bytes that are ready, often none.
    ///
    /// # Errors
    /// When the coding's library fails.
    pub(in super::super) fn advance(&mut self) -> Result<Bytes, CodingFailed> {
        let slice = self.left.split_to(self.left.len().min(SLICE));
        match &mut self.state {
            State::Gzip(encoder) => {
                encoder.write_all(&slice).map_err(|_| CodingFailed)?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
            State::Zstd(context) => zstd(context, slice, ZSTD_EndDirective::ZSTD_e_continue),
        }
    }

    /// The bytes that are held back until more of the answer comes, in a form that a client can
    /// read at once.
    ///
    /// # Errors
    /// When the coding's library fails.
    pub(in super::super) fn flush(&mut self) -> Result<Bytes, CodingFailed> {
        match &mut self.state {
            State::Gzip(encoder) => {
                encoder.flush().map_err(|_| CodingFailed)?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
            State::Zstd(context) => zstd(context, Bytes::new(), ZSTD_EndDirective::ZSTD_e_flush),
        }
    }

    /// The last bytes.
    ///
    /// # Errors
    /// When the coding's library fails.
    pub(in super::super) fn finish(&mut self) -> Result<Bytes, CodingFailed> {
        self.is_finished = true;
        match &mut self.state {
            State::Gzip(encoder) => {
                encoder.try_finish().map_err(|_| CodingFailed)?;
                Ok(std::mem::take(encoder.get_mut()).into())
            }
            State::Zstd(context) => zstd(context, Bytes::new(), ZSTD_EndDirective::ZSTD_e_end),
        }
    }
}

/// The coding's library failed, for which there is no reason that a client can give it.
#[derive(Debug)]
pub(in super::super) struct CodingFailed;

fn zstd(context: &mut CCtx<'static>, mut slice: Bytes, end: ZSTD_EndDirective) -> Result<Bytes, CodingFailed> {
    let mut made = BytesMut::new();
    let mut room = [0; OUT];
    loop {
        let mut out = OutBuffer::around(&mut room[..]);
        let mut input = InBuffer::around(&slice);
        let left = context.compress_stream2(&mut out, &mut input, end).map_err(|_| CodingFailed)?;
        let taken = input.pos();
        made.extend_from_slice(out.as_slice());
        slice.advance(taken);
        let is_done = match end {
            ZSTD_EndDirective::ZSTD_e_continue => slice.is_empty(),
            ZSTD_EndDirective::ZSTD_e_flush | ZSTD_EndDirective::ZSTD_e_end => left == 0,
        };
        if is_done {
            return Ok(made.freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::{super::Encoders, *};

    fn encoder(coding: Coding, level: u8) -> Encoder {
        Encoder::new(coding, level, Encoders::default().permit(1).unwrap()).unwrap()
    }

    fn encoded(coding: Coding, level: u8, pieces: &[Bytes]) -> Vec<u8> {
        let mut encoder = encoder(coding, level);
        let mut coded = Vec::new();
        for piece in pieces {
            encoder.feed(piece.clone());
            while !encoder.is_hungry() {
                coded.extend_from_slice(&encoder.advance().unwrap());
            }
        }
        coded.extend_from_slice(&encoder.finish().unwrap());
        assert!(encoder.is_finished());
        coded
    }

    fn decoded(coding: Coding, coded: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match coding {
            Coding::Gzip => drop(GzDecoder::new(coded).read_to_end(&mut plain).unwrap()),
            Coding::Zstd => {
                let mut room = vec![0; 16 << 20];
                let length = zstd_safe::decompress(&mut room[..], coded).unwrap();
                plain.extend_from_slice(&room[..length]);
            }
        }
        plain
    }

    #[test]
    fn every_level_of_every_coding_gives_the_bytes_back() {
        let words: String =
            (0..60_000_u64).map(|n| format!("{:x},", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40)).collect();
        let pieces = [Bytes::from_static(b"{"), Bytes::from(words), Bytes::from_static(b"}")];
        let plain = pieces.concat();
        for coding in [Coding::Gzip, Coding::Zstd] {
            for level in 1..=9 {
                let coded = encoded(coding, level, &pieces);
                assert!(coded.len() < plain.len(), "{coding} {level}");
                assert!(decoded(coding, &coded) == plain, "{coding} {level}");
            }
            assert_eq!(decoded(coding, &encoded(coding, 3, &[])), b"");
        }
    }

    #[test]
    fn an_encoder_of_zstd_takes_less_than_a_megabyte() {
        for level in 1..=9 {
            let mut encoder = encoder(Coding::Zstd, level);
            encoder.feed(Bytes::from(vec![b'x'; 8 << 20]));
            while !encoder.is_hungry() {
                encoder.advance().unwrap();
            }
            let State::Zstd(context) = &encoder.state else { unreachable!() };
            assert!(context.sizeof() < 1 << 20, "{level}: {}", context.sizeof());
        }
    }
}
