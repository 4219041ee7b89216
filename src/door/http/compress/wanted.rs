//! The codings that a client takes, by its `Accept-Encoding`.

use http::{HeaderMap, header};

use crate::config::Coding;

/// The weights of codings, in thousandths; `None` for a coding that the client does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Wanted {
    gzip: Option<u16>,
    zstd: Option<u16>,
    identity: Option<u16>,
    /// The weight of every coding that is not named.
    any: Option<u16>,
}

impl Wanted {
    /// Reads the client's header lines.
    pub(in super::super) fn by(headers: &HeaderMap) -> Self {
        let mut wanted = Self::default();
        for value in headers.get_all(header::ACCEPT_ENCODING) {
            wanted.read(value.as_bytes());
        }
        wanted
    }

    fn read(&mut self, value: &[u8]) {
        for entry in value.split(|b| *b == b',') {
            let mut parts = entry.split(|b| *b == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| {
                let (key, value) = part.split_at(part.iter().position(|b| *b == b'=')?);
                key.trim_ascii().eq_ignore_ascii_case(b"q").then(|| thousandths(value[1..].trim_ascii()))
            });
            // A weight that is none is as good as zero: a coding is not forced on anybody.
            let weight = quality.map_or(1000, Option::unwrap_or_default);
            match &*name {
                b"gzip" | b"x-gzip" => self.gzip = Some(weight),
                b"zstd" => self.zstd = Some(weight),
                b"identity" => self.identity = Some(weight),
                b"*" => self.any = Some(weight),
                _ => {}
            }
        }
    }

    fn weight(&self, coding: Coding) -> u16 {
        let named = match coding {
            Coding::Gzip => self.gzip,
            Coding::Zstd => self.zstd,
        };
        named.or(self.any).unwrap_or(0)
    }

    /// Whether the client takes an answer that is not compressed.
    pub(in super::super) fn takes_plain(&self) -> bool {
        self.identity.or(self.any) != Some(0)
    }

    /// The coding of `codings` that the client likes best, the first of equals; `None` where the
    /// client takes none of them, or would rather have the answer as it is.
    pub(in super::super) fn best(&self, codings: &[Coding]) -> Option<Coding> {
        let mut best = None;
        for coding in codings {
            let weight = self.weight(*coding);
            if weight > best.map_or(0, |(weight, _)| weight) {
                best = Some((weight, *coding));
            }
        }
        best.filter(|(weight, _)| self.identity.is_none_or(|plain| plain <= *weight)).map(|(_, coding)| coding)
    }
}

/// Whether the value of an `Accept-Encoding` may ask for a coding: the value names more than
/// `identity`.
pub(in super::super) fn may_compress(value: &[u8]) -> bool {
    !matches!(value.trim_ascii(), b"" | b"identity")
}

/// `0.5`, `1`, `0.333`.
fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let fraction = (0..3).fold(0, |sum, at| sum * 10 + u16::from(fraction.get(at).map_or(0, |digit| digit - b'0')));
    match (whole, fraction) {
        (b"0", fraction) => Some(fraction),
        (b"1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(value: &str) -> Wanted {
        let mut wanted = Wanted::default();
        wanted.read(value.as_bytes());
        wanted
    }

    #[test]
    fn weights_decide_and_the_order_of_the_file_among_equals() {
        let both = [Coding::Zstd, Coding::Gzip];
        for (value, expected) in [
            ("gzip", Some(Coding::Gzip)),
            ("gzip, zstd", Some(Coding::Zstd)),
            ("zstd;q=0.5, gzip;q=0.501", Some(Coding::Gzip)),
            ("GZIP ; Q=1.000 , br", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("*, zstd;q=0", Some(Coding::Gzip)),
            ("*;q=0, gzip", Some(Coding::Gzip)),
            ("identity;q=0, gzip;q=0.001", Some(Coding::Gzip)),
            ("identity, gzip;q=0.9", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Coding::Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=0.0, zstd;q=0.000", None),
            ("gzip;q=2", None),
            ("gzip;q=", None),
            ("gzip;q=0.1234", None),
            ("br, deflate", None),
            ("identity", None),
            ("", None),
        ] {
            assert_eq!(wanted(value).best(&both), expected, "{value:?}");
        }
        assert_eq!(wanted("gzip").best(&[Coding::Zstd]), None);
        assert_eq!(wanted("gzip").best(&[]), None);
    }

    #[test]
    fn a_plain_answer_is_refused_by_weight_only() {
        for (value, takes) in [
            ("", true),
            ("gzip", true),
            ("identity;q=0", false),
            ("*;q=0", false),
            ("*;q=0, identity;q=0.1", true),
            ("identity;q=0.001", true),
        ] {
            assert_eq!(wanted(value).takes_plain(), takes, "{value:?}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append(header::ACCEPT_ENCODING, "gzip;q=0.5".parse().unwrap());
        headers.append(header::ACCEPT_ENCODING, "zstd".parse().unwrap());
        assert_eq!(Wanted::by(&headers).best(&[Coding::Gzip, Coding::Zstd]), Some(Coding::Zstd));
        assert!(may_compress(b"gzip") && !may_compress(b" identity ") && !may_compress(b""));
    }
}
