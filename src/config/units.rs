//! Durations and sizes: a whole number and its unit, in a string.

use std::time::Duration;

use super::problem::Invalid;

/// Nothing that Steadfast waits for takes longer; a longer one is a slip of the unit.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Reads `500ms`, `1s`, `2m`, `1h`, `7d`.
///
/// # Errors
/// When the text is no whole number with a unit, or means more than a year.
pub fn duration(text: &str) -> Result<Duration, Invalid> {
    let wrong = Invalid("must be a whole number with a unit (ms, s, m, h or d), such as \"500ms\" or \"30s\"");
    let (number, unit) = split(text).ok_or(wrong)?;
    let milliseconds_each = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60 * 1_000,
        "h" => 60 * 60 * 1_000,
        "d" => 24 * 60 * 60 * 1_000,
        _ => return Err(wrong),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(milliseconds_each))
        .map(Duration::from_millis)
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or(Invalid("must not be longer than a year"))
}

/// Reads `512B`, `64KiB`, `10MiB`, `1GiB`, and `kB`, `MB`, `GB` for the powers of ten. In bytes, at
/// least one.
pub(super) fn size(text: &str) -> Result<usize, Invalid> {
    let wrong = Invalid("must be a whole number with a unit (B, kB, KiB, MB, MiB, GB or GiB), such as \"10MiB\"");
    let (number, unit) = split(text).ok_or(wrong)?;
    let bytes_each = match unit {
        "B" => 1,
        "kB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return Err(wrong),
    };
    let bytes = number.parse::<usize>().ok().and_then(|n| n.checked_mul(bytes_each));
    match bytes.filter(|bytes| isize::try_from(*bytes).is_ok()) {
        Some(0) => Err(Invalid("must not be zero")),
        Some(bytes) => Ok(bytes),
        None => Err(Invalid("is more than this machine can address")),
    }
}

/// Splits digits from the unit; one space between them is allowed.
fn split(text: &str) -> Option<(&str, &str)> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    (!number.is_empty()).then(|| (number, unit.strip_prefix(' ').unwrap_or(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_a_unit() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("500ms", 500),
            ("1s", 1_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("30 s", 30_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(duration("8760h"), Ok(MAX_DURATION));
        for text in
            ["", "1", "s", "-1s", "+1s", "1.5s", "1S", "1 s ", "1  s", "1m30s", "1D", "1µs", "٣s", "0x1s", "1_0s"]
        {
            let error = duration(text).expect_err(text).to_string();
            assert!(error.contains("with a unit"), "{text}: {error}");
        }
        for text in ["8761h", "366d", "31536001s", "99999999999999999999s", "18446744073709551615h"] {
            let error = duration(text).expect_err(text).to_string();
            assert!(error.contains("a year"), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_are_whole_numbers_with_a_unit() {
        for (text, bytes) in [
            ("512B", 512),
            ("64KiB", 65_536),
            ("64kB", 64_000),
            ("10MiB", 10_485_760),
            ("10MB", 10_000_000),
            ("1GiB", 1_073_741_824),
            ("1GB", 1_000_000_000),
            ("1 KiB", 1_024),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "1", "B", "-1B", "1.5MiB", "1mb", "1KB", "1mib", "1TiB", "1 MiB "] {
            let error = size(text).expect_err(text).to_string();
            assert!(error.contains("with a unit"), "{text}: {error}");
        }
        assert_eq!(size("0B"), Err(Invalid("must not be zero")));
        for text in ["17179869184GiB", "99999999999999999999B", "18446744073709551615B", "9223372036854775808B"] {
            let error = size(text).expect_err(text).to_string();
            assert!(error.contains("address"), "{text}: {error}");
        }
    }
}
