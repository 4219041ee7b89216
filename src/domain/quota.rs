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

/// Words of a quota, in lower case, each with a text that has them, and where that text was found.
/// Sources that are no pages are repositories' issues.
const OF_A_QUOTA: [(&str, &str); 34] = [
    ("rate limit", "dRPC: 'You reached Public endpoint rate limit' (drpcorg/nodecore#327)"),
    ("rate-limit", "as above, in another spelling"),
    ("ratelimit", "as above, in another spelling"),
    ("rate exceeded", "Infura: 'project ID request rate exceeded' (INFURA/infura#201)"),
    ("rate is exceeded", "as above, in other words"),
    ("too many request", "Infura: 'Too Many Requests' (docs.metamask.io, Rate limits)"),
    ("too many connections", "gateways before nodes"),
    ("too many concurrent", "gateways before nodes"),
    ("request limit", "QuickNode: '50/second request limit reached' (foundry-rs/foundry#4894)"),
    ("requests limit", "as above, and 'trace requests limited to 5/sec'"),
    ("request count exceeded", "Infura: 'daily request count exceeded, request rate limited' (nimbus-eth2#1632)"),
    ("requests per second", "reown: 'Requests per second limit exceeded' (reown-com/blockchain-api#1175)"),
    ("calls per second", "QuickNode: 'reduce calls per second or upgrade' (foundry-rs/foundry#4894)"),
    ("requests per minute", "public gateways"),
    ("requests limited to", "QuickNode: 'trace requests limited to 5/sec'"),
    ("concurrent requests", "Alchemy: 'has exceeded its concurrent requests capacity'"),
    ("compute unit", "Alchemy: 'exceeded its compute units per second capacity' (conduitxyz/node#36)"),
    ("capacity exceeded", "gateways before nodes"),
    ("capacity limit", "Alchemy: 'Monthly capacity limit exceeded' (xmtp/xmtpd#672)"),
    ("rps limit", "Chainstack: 'exceeded the RPS limit available' (BobTheBuidler/dank_mids#728)"),
    ("cu limit", "BlastAPI and dRPC, of compute units"),
    ("cups limit", "as above, of compute units a second"),
    ("out of cu", "as above: 'ran out of cu'"),
    ("usage limit", "plans of providers"),
    ("daily limit", "plans of providers"),
    ("monthly limit", "plans of providers"),
    ("credit limit", "plans of providers"),
    ("credits limit", "QuickNode: 'credits limited to 6000/sec' (foundry-rs/foundry#6712)"),
    ("out of credits", "plans of providers"),
    ("quota", "NodeReal: 'reached your monthly quota limit'"),
    ("throughput limit", "Infura: 'surpassed your user-defined key throughput limit' (docs.metamask.io, Rate limits)"),
    ("throttle", "AWS: 'ThrottlingException'"),
    ("throttling", "as above"),
    ("error code: 1015", "Cloudflare's page for clients that are rate limited"),
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
    CODES.contains(&code) || OF_A_QUOTA.iter().any(|(words, _)| says(message.as_bytes(), words))
}

/// Whether a short answer that is no JSON-RPC response speaks of a quota, like a gateway's page or
/// `{"message":"Too many requests"}`.
pub fn is_quota_in_words(text: &[u8]) -> bool {
    const MAX_RETRY_AFTER: usize = 4096;
    text.len() <= MAX_RETRY_AFTER && OF_A_QUOTA.iter().any(|(words, _)| says(text, words))
}

/// Words behind which a refusal says how long to wait, in lower case, each with its source as
/// above.
const BEFORE_A_WAIT: [(&str, &str); 6] = [
    ("backoff_seconds", "Infura: `\"backoff_seconds\":30` in the error's data (nimbus-eth2#1632)"),
    ("try_again_in", "Chainstack: `\"try_again_in\":\"38.3ms\"` in the error's data"),
    ("retry in", "Ankr: 'call rate limit exhausted, retry in 10s', and '10m0s'"),
    ("try again in", "gateways before nodes"),
    ("retry after", "gateways before nodes"),
    ("retry_after", "gateways before nodes, in the error's data"),
];

/// How long a refusal asks to wait in its words, or in the data of a JSON-RPC error. That is all
/// there is over a link, which has no headers. Only the beginning of a text is read.
pub fn wait_in_words(text: &[u8]) -> Option<Duration> {
    const MOST: usize = 4096;
    let text = text[..text.len().min(MOST)].to_ascii_lowercase();
    let text = String::from_utf8_lossy(&text);
    let behind = |words: &str| text.find(words).map(|place| &text[place + words.len()..]);
    let behind = BEFORE_A_WAIT.iter().find_map(|(words, _)| behind(words))?;
    let behind = behind.trim_start_matches(['"', ' ', ':', '=']);
    Some(in_units(behind)?.min(MAX_RETRY_AFTER))
}

/// The time at the beginning of `text`: `10`, `1.5s`, `38ms`, `30 seconds`, `10m0s`. A number
/// without a unit is of seconds.
fn in_units(mut text: &str) -> Option<Duration> {
    let mut sum = None;
    loop {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let Ok(number) = text[..end].trim_end_matches('.').parse::<f64>() else { return sum };
        let rest = text[end..].trim_start();
        let unit = rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        let seconds = match unit {
            "ms" | "millisecond" | "milliseconds" => 0.001,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            _ => 1.0,
        };
        let part = Duration::try_from_secs_f64(number * seconds).unwrap_or(MAX_RETRY_AFTER);
        sum = Some(part.saturating_add(sum.unwrap_or_default()));
        text = &rest[unit.len()..];
    }
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
            (15, "You reached Public endpoint rate limit, please upgrade to paid plan"),
            (-32012, "credits limited to 6000/sec"),
            (-32600, "Monthly capacity limit exceeded. Visit https://dashboard.alchemyapi.io/settings/billing"),
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
    fn a_wait_is_read_from_words_and_from_data() {
        for (text, wait) in [
            (
                r#"{"code":-32005,"message":"daily request count exceeded, request rate limited","data":{"rate":{"allowed_rps":1,"backoff_seconds":30,"current_rps":1.27}}}"#,
                Some(30_000),
            ),
            (r#"{"code":-32005,"data":{"try_again_in":"38.352399ms"},"message":"the RPS limit"}"#, Some(38)),
            ("Too many requests, reason: call rate limit exhausted, retry in 10s", Some(10_000)),
            ("Too many requests, reason: call rate limit exhausted, retry in 10m0s", Some(600_000)),
            ("slow down: Try again in 1.5 seconds.", Some(1500)),
            ("Retry after 2 minutes", Some(120_000)),
            (r#"{"retry_after": 7}"#, Some(7_000)),
            ("retry in 99999999999999999999h", Some(3_600_000)),
            ("retry in 5. Or upgrade", Some(5_000)),
            ("retry in a while", None),
            ("rate limit exceeded", None),
            ("", None),
        ] {
            assert_eq!(wait_in_words(text.as_bytes()).map(|wait| wait.as_millis()), wait, "{text}");
        }
    }

    #[test]
    fn every_row_of_the_tables_is_in_lower_case() {
        for (words, source) in OF_A_QUOTA.iter().chain(&BEFORE_A_WAIT) {
            assert!(words.to_ascii_lowercase() == *words && !source.is_empty(), "{words}");
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
