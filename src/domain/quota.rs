//! How nodes and providers say that a client asks too much of them: by an HTTP status, by an error
//! in HTTP 200, or in plain words.
//!
//! A limit on one call (results, blocks, gas, bytes) is none of these: another call would be
//! answered.

use std::time::Duration;

/// The longest that `Retry-After` is obeyed: a slip of a gateway's clock must not take a node away
/// for ever.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Codes that mean a quota with any words: HTTP's, and OnFinality's.
const CODES: [i64; 2] = [429, -32029];

/// Words of a quota, in lower case.
const OF_A_QUOTA: [&str; 33] = [
    "rate limit",
    "rate-limit",
    "ratelimit",
    "rate exceeded",
    "rate is exceeded",
    "too many request",
    "too many connections",
    "too many concurrent",
    "request limit",
    "requests limit",
    "request count exceeded",
    "requests per second",
    "calls per second",
    "requests per minute",
    "requests limited to",
    "concurrent requests",
    "compute unit",
    "capacity exceeded",
    "capacity limit",
    "rps limit",
    "cu limit",
    "cups limit",
    "out of cu",
    "usage limit",
    "daily limit",
    "monthly limit",
    "credit limit",
    "credits limit",
    "out of credits",
    "quota",
    "throttle",
    "throttling",
    "error code: 1015",
];

/// Words of a limit on the call itself, or of a contract, which have the last word.
const OF_THE_CALL: [&str; 8] =
    ["revert", "results", "block range", "blocks range", "response size", "too big", "block gas limit", "batch"];

/// Whether a JSON-RPC error says that too much is asked of the node.
pub fn is_quota(code: i64, message: &str) -> bool {
    // Code 3 is a revert: the words are a contract's.
    if code == 3 || OF_THE_CALL.iter().any(|words| says(message.as_bytes(), words)) {
        return false;
    }
    CODES.contains(&code) || OF_A_QUOTA.iter().any(|words| says(message.as_bytes(), words))
}

/// Whether a short answer that is no JSON-RPC response speaks of a quota, like a gateway's page or
/// `{"message":"Too many requests"}`.
pub fn is_quota_in_words(text: &[u8]) -> bool {
    const MAX_RETRY_AFTER: usize = 4096;
    text.len() <= MAX_RETRY_AFTER && OF_A_QUOTA.iter().any(|words| says(text, words))
}

fn says(text: &[u8], words: &str) -> bool {
    text.windows(words.len()).any(|window| window.eq_ignore_ascii_case(words.as_bytes()))
}

/// How long `Retry-After` asks to wait. A date there is compared with the answer's own `Date`,
/// because the proxy's clock may differ.
pub fn retry_after(value: &[u8], date: Option<&[u8]>) -> Option<Duration> {
    let value = std::str::from_utf8(value).ok()?.trim();
    let wait = match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok().or((seconds > 0.0).then_some(MAX_RETRY_AFTER))?,
        Err(_) => {
            let date = std::str::from_utf8(date?).ok()?;
            let (then, now) = (httpdate::parse_http_date(value).ok()?, httpdate::parse_http_date(date.trim()).ok()?);
            then.duration_since(now).unwrap_or(Duration::ZERO)
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_of_a_quota_is_known() {
        for (code, message) in [
            (-32005, "daily request count exceeded, request rate limited"),
            (-32005, "project ID request rate exceeded"),
            (-32005, "rate limit exceeded"),
            (-32005, "You've exceeded the RPS limit available on the current plan."),
            (-32005, "You have exceeded the CUPS limit of your plan"),
            (
                -32007,
                "50/second request limit reached - reduce calls per second or upgrade your account at quicknode.com",
            ),
            (-32009, "trace requests limited to 5/sec"),
            (-32003, "daily request limit reached - upgrade your account"),
            (-32029, "Please apply for an API key"),
            (-32090, "Too many requests, reason: call rate limit exhausted, retry in 10s"),
            (-32097, "you reached your requests per second limit"),
            (-32001, "Exceeded the quota usage"),
            (-32000, "ran out of cu"),
            (-32016, "over rate limit"),
            (-32000, "request throttled: ThrottlingException, throttle"),
            (15, "Too many request, try again later"),
            (429, "Your app has exceeded its compute units per second capacity."),
            (429, "Monthly capacity limit exceeded. Visit https://dashboard.alchemy.com/settings/billing"),
            (429, "anything"),
            (-32603, "Your app has exceeded its concurrent requests capacity"),
        ] {
            assert!(is_quota(code, message), "{code} {message}");
        }
    }

    #[test]
    fn a_limit_on_one_call_is_no_quota() {
        for (code, message) in [
            (-32005, "query returned more than 10000 results. Try with this block range [0x1, 0x2]."),
            (-32005, "query returned more than 10000 results"),
            (-32005, "limit exceeded"),
            (-32602, "eth_getLogs and eth_newFilter are limited to a 10,000 blocks range"),
            (-32602, "Log response size exceeded. this block range should work: [0x1, 0x2]"),
            (-32000, "block range too large: exceeds maximum of 1024"),
            (-32008, "Response is too big"),
            (-32000, "execution timeout"),
            (-32000, "exceeds block gas limit"),
            (-32000, "txpool is full"),
            (3, "execution reverted: rate limit exceeded"),
            (-32603, "execution reverted: rate limit exceeded"),
            (-32600, "batch rate limit: too many calls in a batch"),
            (-32603, "Internal error"),
            (-32601, "the method debug_x does not exist/is not available"),
        ] {
            assert!(!is_quota(code, message), "{code} {message}");
        }
    }

    #[test]
    fn words_of_a_quota_are_known_and_long_pages_not_searched() {
        for text in ["error code: 1015", r#"{"message":"Too many requests"}"#, r#"{"error":"rate limit exceeded"}"#] {
            assert!(is_quota_in_words(text.as_bytes()), "{text}");
        }
        let page = format!("<html>{}rate limit", " ".repeat(5000));
        for text in ["", "<html>502 Bad Gateway</html>", &page] {
            assert!(!is_quota_in_words(text.as_bytes()), "{:.40}", text);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_senders_clock() {
        let (noon, later) = ("Tue, 15 Nov 1994 12:00:00 GMT", "Tue, 15 Nov 1994 12:00:30 GMT");
        for (value, date, seconds) in [
            ("7", None, Some(7.0)),
            (" 0 ", None, Some(0.0)),
            ("1.5", None, Some(1.5)),
            ("99999999999", None, Some(3600.0)),
            ("1e400", None, Some(3600.0)),
            ("-1", None, None),
            ("NaN", None, None),
            ("soon", Some(noon), None),
            (later, Some(noon), Some(30.0)),
            (noon, Some(later), Some(0.0)),
            (later, None, None),
            ("", None, None),
        ] {
            let read = retry_after(value.as_bytes(), date.map(str::as_bytes));
            assert_eq!(read.map(|wait| wait.as_secs_f64()), seconds, "{value}");
        }
    }
}
