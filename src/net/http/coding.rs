//! Compressed bodies. We ask nodes for none, and some send them all the same.

use std::io::{self, Write};

use bytes::{Buf, Bytes};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::head::NotHttp;

/// Coded bytes that are decoded at a time. Decoding makes about a thousand times as many bytes at
/// most, so a body that swells is never in memory as a whole: the reader counts the pieces.
const STEP: usize = 256;

/// How a body is coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    #[default]
    Identity,
    /// By gzip.
    Gzip,
    /// By zlib, or by the bare algorithm, since some understood that.
    Deflate,
    /// In an unknown way, or in several.
    Unknown,
}

impl Coding {
    /// Takes one more `content-encoding` into account.
    pub(super) fn and(self, value: &[u8]) -> Self {
        let coding = match value.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => return self,
            b"gzip" | b"x-gzip" => Self::Gzip,
            b"deflate" => Self::Deflate,
            _ => Self::Unknown,
        };
        if self == Self::Identity { coding } else { Self::Unknown }
    }
}

/// Undoes a coding, piece by piece.
pub(super) struct Decoder {
    coded: Bytes,
    state: State,
}

enum State {
    /// At most one byte has come, and two are needed to see the format.
    Fresh(Coding),
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Zlib(Box<ZlibDecoder<Vec<u8>>>),
    Bare(Box<DeflateDecoder<Vec<u8>>>),
}

impl Decoder {
    /// A decoder for `coding`; `None` where there is nothing to undo.
    ///
    /// # Errors
    /// When the coding is unknown.
    pub(super) fn new(coding: Coding) -> Result<Option<Box<Self>>, NotHttp> {
        match coding {
            Coding::Identity => Ok(None),
            Coding::Unknown => Err(NotHttp("a content coding that was not asked for")),
            coding => Ok(Some(Box::new(Self { coded: Bytes::new(), state: State::Fresh(coding) }))),
        }
    }

    /// Takes in more of the body.
    pub(super) fn feed(&mut self, coded: Bytes) {
        self.coded = if self.coded.is_empty() { coded } else { [&self.coded[..], &coded].concat().into() };
    }

    /// Decodes the next piece; `None` when more coded bytes are needed.
    ///
    /// # Errors
    /// When the bytes are not in the format that the head names.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, NotHttp> {
        if let State::Fresh(coding) = self.state {
            let [first, second, ..] = self.coded[..] else { return Ok(None) };
            let is_zlib = first & 0x0f == 8 && u16::from_be_bytes([first, second]) % 31 == 0;
            self.state = match coding {
                Coding::Gzip => State::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
                _ if is_zlib => State::Zlib(Box::new(ZlibDecoder::new(Vec::new()))),
                _ => State::Bare(Box::new(DeflateDecoder::new(Vec::new()))),
            };
        }
        while !self.coded.is_empty() {
            let step = &self.coded[..self.coded.len().min(STEP)];
            let taken = match &mut self.state {
                State::Gzip(decoder) => decoder.write(step),
                State::Zlib(decoder) => decoder.write(step),
                State::Bare(decoder) => decoder.write(step),
                State::Fresh(_) => return Ok(None),
            };
            // The decoder takes nothing more: the coded body has ended, and other bytes follow.
            let taken = taken.ok().filter(|taken| *taken > 0).ok_or(BAD)?;
            self.coded.advance(taken);
            if let Some(piece) = self.take()? {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// The last piece, when all of the body has come.
    ///
    /// # Errors
    /// When the coded body is not whole.
    pub(super) fn finish(&mut self) -> Result<Option<Bytes>, NotHttp> {
        match &mut self.state {
            State::Fresh(_) if self.coded.is_empty() => return Ok(None),
            State::Fresh(_) => return Err(BAD),
            State::Gzip(decoder) => decoder.try_finish(),
            State::Zlib(decoder) => decoder.try_finish(),
            State::Bare(decoder) => decoder.try_finish(),
        }
        .map_err(|_| BAD)?;
        self.take()
    }

    fn take(&mut self) -> Result<Option<Bytes>, NotHttp> {
        let decoded = match &mut self.state {
            State::Gzip(decoder) => take(&mut **decoder, MultiGzDecoder::get_mut),
            State::Zlib(decoder) => take(&mut **decoder, ZlibDecoder::get_mut),
            State::Bare(decoder) => take(&mut **decoder, DeflateDecoder::get_mut),
            State::Fresh(_) => Ok(Vec::new()),
        };
        let decoded = decoded.map_err(|_| BAD)?;
        Ok((!decoded.is_empty()).then(|| decoded.into()))
    }
}

const BAD: NotHttp = NotHttp("the body is not coded as it says");

fn take<D: Write>(decoder: &mut D, out: impl Fn(&mut D) -> &mut Vec<u8>) -> io::Result<Vec<u8>> {
    // Decoded bytes may wait in the decoder.
    decoder.flush()?;
    Ok(std::mem::take(out(decoder)))
}

#[cfg(test)]
mod tests {
    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// The body decoded from `coded`, which comes `step` bytes at a time, and the longest piece.
    fn decoded(coding: Coding, coded: &[u8], step: usize) -> Result<(Vec<u8>, usize), NotHttp> {
        let mut decoder = Decoder::new(coding)?.unwrap();
        let (mut whole, mut longest) = (Vec::new(), 0);
        for piece in coded.chunks(step) {
            decoder.feed(Bytes::copy_from_slice(piece));
            while let Some(piece) = decoder.next()? {
                longest = longest.max(piece.len());
                whole.extend_from_slice(&piece);
            }
        }
        whole.extend_from_slice(&decoder.finish()?.unwrap_or_default());
        Ok((whole, longest))
    }

    #[test]
    fn each_coding_is_undone_however_its_bytes_are_cut() {
        let text: Vec<u8> = (0..20_000_u32).flat_map(|n| (n * n).to_string().into_bytes()).collect();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&text).unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::default());
        bare.write_all(&text).unwrap();
        let halves = [gzip(&text[..99]), gzip(&text[99..])].concat();
        for (coding, coded) in [
            (Coding::Gzip, gzip(&text)),
            (Coding::Gzip, halves),
            (Coding::Deflate, zlib.finish().unwrap()),
            (Coding::Deflate, bare.finish().unwrap()),
        ] {
            for step in [1, 2, 7, 255, 256, 257, 10_000, coded.len()] {
                let (whole, _) = decoded(coding, &coded, step).unwrap();
                assert!(whole == text, "{coding:?} by {step}");
            }
            // A truncated body is not taken for a whole one.
            for length in [1, 5, 20, coded.len() / 2, coded.len() - 1] {
                assert!(decoded(coding, &coded[..length], 100).is_err(), "{coding:?}: {length} of {}", coded.len());
            }
        }
        assert_eq!(decoded(Coding::Gzip, b"", 1), Ok((Vec::new(), 0)));
    }

    #[test]
    fn a_body_that_swells_comes_in_pieces_and_bad_coding_is_refused() {
        let (whole, longest) = decoded(Coding::Gzip, &gzip(&vec![b'0'; 50 << 20]), 8192).unwrap();
        assert_eq!(whole.len(), 50 << 20);
        assert!(longest < 1 << 20, "a piece of {longest} bytes");
        let broken = {
            let mut coded = gzip(b"hello");
            coded[12] ^= 0x55;
            coded
        };
        for coded in [&b"{\"jsonrpc\":\"2.0\"}"[..], b"\x1f\x8b", &broken, &[gzip(b"a"), b"more".to_vec()].concat()] {
            assert!(decoded(Coding::Gzip, coded, 100).is_err(), "{coded:?}");
        }
        assert!(decoded(Coding::Deflate, b"{\"jsonrpc\":\"2.0\"}", 100).is_err());
    }

    #[test]
    fn one_known_coding_is_undone_and_several_or_others_are_not() {
        for (values, coding) in [
            (&[][..], Coding::Identity),
            (&["identity"], Coding::Identity),
            (&["GZip "], Coding::Gzip),
            (&["identity", "x-gzip"], Coding::Gzip),
            (&["deflate"], Coding::Deflate),
            (&["br"], Coding::Unknown),
            (&["gzip, gzip"], Coding::Unknown),
            (&["gzip", "gzip"], Coding::Unknown),
        ] {
            let all = values.iter().fold(Coding::default(), |coding, value| coding.and(value.as_bytes()));
            assert_eq!(all, coding, "{values:?}");
        }
        assert!(Decoder::new(Coding::Unknown).is_err());
    }
}
