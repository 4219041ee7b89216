//! HTTP/1.1 as bytes, the client's half: how a response is framed. Pure.
//!
//! The client is our own, because a whole call costs less here than a general client's share of a
//! call (`docs/PERFORMANCE.md`), and because only the owner of the connection can tell whether a
//! byte of a request may have reached the node.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};

use super::coding::Coding;

/// The longest response head accepted, in bytes.
const MAX_ANSWER_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;
/// The longest line between chunks: a size, its extensions, or a trailer.
const MAX_CHUNK_LINE: usize = 1024;
/// All trailers together, at most, in bytes.
const MAX_TRAILERS: usize = 16 * 1024;
/// Responses that only announce another, at most.
const MAX_INTERIM: usize = 32;
/// Pieces of chunks up to this size are copied together, so that they do not keep the framing bytes
/// between them in memory. Nodes cut long answers into pieces of 2 kB and more, which are not
/// copied: the framing between those is short against the pieces.
const SHORT: usize = 1024;
/// So much is copied together at most.
const TOGETHER: usize = 16 * 1024;

/// How the complaint begins of a peer that wants TLS and heard something else.
const TLS_ALERT: &[u8] = &[0x15, 0x03];

/// Why bytes are not an HTTP response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an HTTP response: {0}")]
pub struct NotHttp(pub &'static str);

/// A response's first part.
#[derive(Clone, Debug)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Whether the connection may carry another request after this response.
    pub keep_alive: bool,
    /// How the body is framed.
    pub framing: Framing,
    /// How the body is coded.
    pub coding: Coding,
    /// Whether that is undone before the body is seen.
    pub(super) is_decoded: bool,
    /// The head's bytes, for readers of its fields.
    raw: Bytes,
}

impl Head {
    /// Reads a head off the front of `buffer`, after skipping and counting interim (1xx) ones.
    /// `None` while the head is not whole. `to_head`: the request was a HEAD, whose response has no
    /// body.
    ///
    /// # Errors
    /// When the bytes cannot become a response.
    pub fn read(buffer: &mut BytesMut, to_head: bool, interim: &mut usize) -> Result<Option<Self>, NotHttp> {
        loop {
            let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut []);
            let parser = httparse::ParserConfig::default();
            let length = match parser.parse_response_with_uninit_headers(&mut response, buffer, &mut headers) {
                Ok(httparse::Status::Complete(length)) => length,
                Ok(httparse::Status::Partial) if buffer.len() > MAX_ANSWER_HEAD => {
                    return Err(NotHttp("head too long"));
                }
                Ok(httparse::Status::Partial) => return Ok(None),
                Err(_) if buffer.starts_with(TLS_ALERT) => {
                    return Err(NotHttp("the port speaks TLS: is the URL https:// or wss://?"));
                }
                Err(_) => return Err(NotHttp("malformed head")),
            };
            let status = response.code.ok_or(NotHttp("no status"))?;
            if status == 101 {
                return Err(NotHttp("switches protocols unasked"));
            }
            if (100..200).contains(&status) {
                *interim += 1;
                if *interim > MAX_INTERIM {
                    return Err(NotHttp("it announces a response and sends none"));
                }
                buffer.advance(length);
                continue;
            }
            if !(200..600).contains(&status) {
                return Err(NotHttp("a status that means nothing"));
            }
            let mut keep_alive = response.version == Some(1);
            let (mut content_length, mut chunked, mut coding) = (None, false, Coding::Identity);
            for header in response.headers.iter() {
                let value = header.value.trim_ascii();
                if header.name.eq_ignore_ascii_case("content-length") {
                    let text = std::str::from_utf8(value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
                    let length: u64 = text.and_then(|v| v.parse().ok()).ok_or(NotHttp("malformed content-length"))?;
                    if content_length.replace(length).is_some_and(|before| before != length) {
                        return Err(NotHttp("content-length twice"));
                    }
                } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                    chunked = value.to_ascii_lowercase().ends_with(b"chunked");
                    if !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(NotHttp("unknown transfer-encoding"));
                    }
                } else if header.name.eq_ignore_ascii_case("content-encoding") {
                    coding = coding.and(value);
                } else if header.name.eq_ignore_ascii_case("connection") {
                    for option in value.split(|&b| b == b',') {
                        match option.trim_ascii() {
                            o if o.eq_ignore_ascii_case(b"close") => keep_alive = false,
                            o if o.eq_ignore_ascii_case(b"keep-alive") && response.version == Some(0) => {
                                keep_alive = true
                            }
                            _ => {}
                        }
                    }
                }
            }
            let framing = match (chunked, content_length) {
                _ if to_head || status == 204 || status == 304 => Framing::Length(0),
                (true, Some(_)) => return Err(NotHttp("both chunked and content-length")),
                (true, None) => Framing::Chunked(Chunk::Size),
                (false, Some(length)) => Framing::Length(length),
                (false, None) => Framing::UntilClose,
            };
            keep_alive &= framing != Framing::UntilClose;
            let raw = buffer.split_to(length).freeze();
            return Ok(Some(Self { status, keep_alive, framing, coding, is_decoded: false, raw }));
        }
    }

    /// Bytes of the body that are still to come, where that is known; not of a decoded body.
    pub fn length(&self) -> Option<u64> {
        if self.is_decoded { None } else { self.framing.remaining() }
    }

    /// All header lines: name and value, in their order. Headers that describe a coding that is
    /// undone are left out.
    pub fn each_header(&self, mut take: impl FnMut(&str, &[u8])) {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        if response.parse(&self.raw).is_ok() {
            let of_the_coding = ["content-encoding", "content-length"];
            let is_void = |name: &str| self.is_decoded && of_the_coding.iter().any(|of| name.eq_ignore_ascii_case(of));
            let headers = response.headers.iter().filter(|header| !is_void(header.name));
            headers.for_each(|header| take(header.name, header.value));
        }
    }

    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<Vec<u8>> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        response.parse(&self.raw).ok()?;
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(header.value.to_vec())
    }
}

/// How much of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes more.
    Length(u64),
    /// Chunks, up to the empty one.
    Chunked(Chunk),
    /// All that comes before the connection is closed.
    UntilClose,
}

/// Where in a chunked body the reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Before a size line.
    Size,
    /// Inside a chunk, so many bytes before its end.
    Data(u64),
    /// Before the line end that closes a chunk.
    DataEnd,
    /// After the empty chunk, before the empty line: so many bytes may still come.
    Trailers(usize),
    /// The body and its framing have ended.
    Done,
}

impl Framing {
    /// Whether the body is complete.
    pub fn is_done(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Done))
    }

    /// The bytes that the body is known to have yet.
    pub fn remaining(self) -> Option<u64> {
        match self {
            Self::Length(length) => Some(length),
            _ => None,
        }
    }

    /// Takes the next piece of the body off `buffer`. `None` when the body is complete or needs
    /// more bytes.
    ///
    /// # Errors
    /// When a chunk is malformed.
    pub fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, NotHttp> {
        let mut together = BytesMut::new();
        while let Some(piece) = self.next(buffer)? {
            let is_short = matches!(self, Self::Chunked(_)) && piece.len() <= SHORT;
            if !is_short && together.is_empty() {
                return Ok(Some(piece));
            }
            together.extend_from_slice(&piece);
            if !is_short || together.len() >= TOGETHER {
                break;
            }
        }
        Ok((!together.is_empty()).then(|| together.freeze()))
    }

    /// The next piece, as the node framed it.
    fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, NotHttp> {
        loop {
            match self {
                Self::UntilClose => return Ok((!buffer.is_empty()).then(|| buffer.split().freeze())),
                Self::Length(left) | Self::Chunked(Chunk::Data(left)) => {
                    if *left == 0 || buffer.is_empty() {
                        return Ok(None);
                    }
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                    *left -= length as u64;
                    if matches!(self, Self::Chunked(Chunk::Data(0))) {
                        *self = Self::Chunked(Chunk::DataEnd);
                    }
                    return Ok(Some(buffer.split_to(length).freeze()));
                }
                Self::Chunked(Chunk::Done) => return Ok(None),
                Self::Chunked(place) => {
                    let Some(end) = memchr::memchr(b'\n', buffer) else {
                        let too_long = buffer.len() > MAX_CHUNK_LINE;
                        return if too_long { Err(NotHttp("chunk line too long")) } else { Ok(None) };
                    };
                    if end > MAX_CHUNK_LINE {
                        return Err(NotHttp("chunk line too long"));
                    }
                    let line = buffer[..end].strip_suffix(b"\r").unwrap_or(&buffer[..end]);
                    *place = match *place {
                        Chunk::Size => match chunk_size(line)? {
                            0 => Chunk::Trailers(MAX_TRAILERS),
                            size => Chunk::Data(size),
                        },
                        Chunk::DataEnd if buffer[..=end] == *b"\r\n" => Chunk::Size,
                        Chunk::DataEnd => return Err(NotHttp("chunk longer than its size")),
                        Chunk::Trailers(_) if line.is_empty() => Chunk::Done,
                        Chunk::Trailers(left) => {
                            Chunk::Trailers(left.checked_sub(end + 1).ok_or(NotHttp("trailers too long"))?)
                        }
                        // These were dealt with above.
                        Chunk::Data(_) | Chunk::Done => return Ok(None),
                    };
                    buffer.advance(end + 1);
                }
            }
        }
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, NotHttp> {
    const MALFORMED: NotHttp = NotHttp("malformed chunk size");
    let end = line.iter().position(|&b| b == b';').unwrap_or(line.len());
    let digits = line[..end].trim_ascii_end();
    if digits.is_empty() {
        return Err(MALFORMED);
    }
    digits.iter().try_fold(0_u64, |size, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return Err(MALFORMED),
        };
        Ok(size.checked_mul(16).ok_or(MALFORMED)? | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a response that comes `step` bytes at a time.
    fn read(text: &[u8], step: usize) -> Result<(u16, bool, Vec<u8>, bool), NotHttp> {
        let (mut buffer, mut head, mut body) = (BytesMut::new(), None::<Head>, Vec::new());
        for piece in text.chunks(step) {
            buffer.extend_from_slice(piece);
            if head.is_none() {
                head = Head::read(&mut buffer, false, &mut 0)?;
            }
            if let Some(head) = &mut head {
                while let Some(piece) = head.framing.take(&mut buffer)? {
                    body.extend_from_slice(&piece);
                }
            }
        }
        let head = head.ok_or(NotHttp("no head"))?;
        Ok((head.status, head.keep_alive, body, head.framing.is_done()))
    }

    #[test]
    fn bodies_come_out_the_same_however_the_bytes_are_cut() {
        type Read = (u16, bool, &'static str, bool);
        let cases: [(&str, Read); 8] = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", (200, true, "hello", true)),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: foo, Close\r\n\r\nhello",
                (200, false, "hello", true),
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", (200, false, "ok", true)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: 1\r\n\r\n",
                (200, true, "hello", true),
            ),
            ("HTTP/1.1 200 OK\r\n\r\nhello", (200, false, "hello", false)),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\n\r\nHTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n",
                (503, true, "", true),
            ),
            ("HTTP/1.1 204 No\r\n\r\n", (204, true, "", true)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", (200, true, "hello", false)),
        ];
        for (text, (status, keep_alive, body, done)) in cases {
            for step in 1..=text.len() {
                let expected = Ok((status, keep_alive, body.as_bytes().to_vec(), done));
                assert_eq!(read(text.as_bytes(), step), expected, "{text:?} by {step}");
            }
        }
    }

    #[test]
    fn a_response_that_can_be_read_in_two_ways_is_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-3\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhello\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 000 Nothing\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 099 Nothing\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 600 Nothing\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 999 Nothing\r\ncontent-length: 0\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(read(text.as_bytes(), 1000).is_err(), "{text:?}");
        }
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        for endless in [
            [b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".repeat(20_000)].concat(),
            b"HTTP/1.1 100 Continue\r\n\r\n".repeat(40),
            [&chunked[..], &b"0".repeat(2000), b"1\r\na\r\n"].concat(),
            [&chunked[..], b"0\r\n", &b"a: b\r\n".repeat(3000), b"\r\n"].concat(),
        ] {
            assert!(read(&endless, 1000).is_err());
        }
    }

    #[test]
    fn short_chunks_keep_nothing_in_memory_but_themselves() {
        let extension = "e".repeat(900);
        let body: Vec<u8> = (0..2000).flat_map(|_| format!("1;{extension}\r\na\r\n").into_bytes()).collect();
        let (mut framing, mut buffer) = (Framing::Chunked(Chunk::Size), BytesMut::from(&body[..]));
        let piece = framing.take(&mut buffer).unwrap().unwrap();
        assert_eq!((piece.len(), framing.take(&mut buffer)), (2000, Ok(None)));
        let own = piece.try_into_mut().expect("nobody else has a part of it").capacity();
        assert!(own < 8192, "{own} bytes for 2000");
    }

    #[test]
    fn a_response_to_head_has_no_body_and_readable_fields() {
        let mut buffer = BytesMut::from(&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nRetry-After: 7\r\n\r\n"[..]);
        let head = Head::read(&mut buffer, true, &mut 0).unwrap().unwrap();
        assert!(head.framing.is_done());
        assert_eq!(head.header("retry-after").as_deref(), Some(&b"7"[..]));
        assert_eq!(head.header("x"), None);
        let mut all = Vec::new();
        head.each_header(|name, value| all.push((name.to_owned(), value.to_vec())));
        assert_eq!(all, [("Content-Length".into(), b"5".to_vec()), ("Retry-After".into(), b"7".to_vec())]);
    }
}
