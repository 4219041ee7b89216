//! The bridge's view of HTTP: the beginning of a request, and the end of its head.

/// The first line of a request.
pub(super) enum Line {
    /// The line begins no request.
    Odd,
    /// So many bytes of the line have come.
    Part(usize),
    /// The line ends there.
    Whole(usize),
}

/// Whether a line may be the first of a request.
pub(super) fn begins_a_request(line: &[u8]) -> bool {
    let method = line.iter().take_while(|b| b.is_ascii_uppercase()).count();
    method <= 16 && matches!(line[method..], [] | [b' '] | [b' ', b'/', ..])
}

/// The part of a request that the next bytes for hyper belong to. hyper gets the bytes of one
/// request at a time, because the first line of the next request has to be looked at before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A head, whose present line is empty so far or not.
    Head { is_line_empty: bool },
    /// A body, with so many bytes to come.
    Body(u64),
    /// Any bytes: only hyper knows the length of a body in chunks.
    All,
}

impl Part {
    /// How many of `bytes` belong to this part, and the part after them.
    pub(super) fn of(self, bytes: &[u8]) -> (usize, Self) {
        match self {
            Self::Head { mut is_line_empty } => {
                for (at, byte) in bytes.iter().enumerate() {
                    match byte {
                        b'\n' if is_line_empty => return (at + 1, Self::All),
                        b'\n' => is_line_empty = true,
                        b'\r' => {}
                        _ => is_line_empty = false,
                    }
                }
                (bytes.len(), Self::Head { is_line_empty })
            }
            // hyper asks for bytes beyond the body only where the body is longer than announced.
            Self::Body(0) | Self::All => (bytes.len(), Self::All),
            Self::Body(left) => {
                let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                (count, Self::Body(left - count as u64))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_its_empty_line_however_it_comes() {
        let head = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let more = [&head[..], b"GET /b"].concat();
        for cut in 0..head.len() {
            let start = Part::Head { is_line_empty: false };
            let (count, part) = start.of(&more[..cut]);
            assert_eq!(count, cut);
            assert_eq!(part.of(&more[cut..]), (head.len() - cut, Part::All), "{cut}");
        }
        assert_eq!(Part::Head { is_line_empty: false }.of(b"GET / HTTP/1.1\n\nx"), (16, Part::All));
        assert_eq!(Part::Body(3).of(b"abcd"), (3, Part::Body(0)));
        assert_eq!(Part::Body(9).of(b"abcd"), (4, Part::Body(5)));
    }
}
