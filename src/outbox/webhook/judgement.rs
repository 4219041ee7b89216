//! What follows from the outcome of an attempt. Pure rules: the time comes with the input.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderValue, StatusCode};

use crate::{
    domain::backoff::doubled,
    net::post::{Answer, PostError},
    outbox::record::Millis,
};

/// The pauses after the failed attempts at a delivery: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60 * 60)];
/// The longest `Retry-After` that is kept to.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What follows from an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The endpoint has the event.
    Delivered,
    /// Another attempt is due later.
    Failed(Failure),
    /// The endpoint wants no more: 410.
    Gone,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Why, in words for operators.
    pub(super) why: String,
    /// Whether it speaks of the endpoint, and not of this delivery alone.
    pub(super) blames_endpoint: bool,
    /// How long the endpoint asked to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// Judges the outcome of an attempt at the time `now`. `None`: there was no answer in time.
pub(super) fn judge(outcome: Option<Result<Answer, PostError>>, now: Millis) -> Judgement {
    let no_answer = |why: String| Judgement::Failed(Failure { why, blames_endpoint: true, retry_after: None });
    let Answer { status, retry_after } = match outcome {
        None => return no_answer("no answer in time".to_owned()),
        Some(Err(error)) => return no_answer(error.to_string()),
        Some(Ok(answer)) => answer,
    };
    match status {
        _ if status.is_success() => Judgement::Delivered,
        StatusCode::GONE => Judgement::Gone,
        _ => Judgement::Failed(Failure {
            why: format!("status {}", status.as_u16()),
            // These three are said of a body; all else would be said of any.
            blames_endpoint: !matches!(
                status,
                StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
            ),
            retry_after: retry_after.and_then(|value| pause_of(&value, now)),
        }),
    }
}

/// The pause that a `Retry-After` asks for: seconds, or a date. `None` for any other text.
fn pause_of(value: &HeaderValue, now: Millis) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let pause = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // A number beyond all bounds is a long time.
        text.parse().map_or(LONGEST_RETRY_AFTER, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        date.saturating_sub(Duration::from_millis(now.0))
    };
    Some(pause.min(LONGEST_RETRY_AFTER))
}

/// The pause after so many failed attempts, at least one: it doubles, and is drawn between half and
/// all of its length. What the endpoint asked for makes it longer.
pub(super) fn pause(failures: u32, retry_after: Option<Duration>, rng: &mut fastrand::Rng) -> Duration {
    let [first, longest] = PAUSES;
    let pause = doubled(first, failures.saturating_sub(1), longest).mul_f64(0.5 + rng.f64() / 2.0);
    pause.max(retry_after.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, retry_after: Option<&'static str>) -> Judgement {
        let status = StatusCode::from_u16(status).unwrap();
        let answer = Answer { status, retry_after: retry_after.map(HeaderValue::from_static) };
        // Thu, 01 Jan 1970 00:01:40 GMT
        judge(Some(Ok(answer)), Millis(100_000))
    }

    fn failure(judgement: Judgement) -> Failure {
        match judgement {
            Judgement::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_success_is_2xx_and_nothing_else() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(answered(status, None), Judgement::Delivered, "{status}");
        }
        assert_eq!(answered(410, None), Judgement::Gone);
        for (status, blames_endpoint) in [
            (301, true),
            (307, true),
            (401, true),
            (404, true),
            (429, true),
            (500, true),
            (503, true),
            (400, false),
            (413, false),
            (422, false),
        ] {
            let failure = failure(answered(status, None));
            assert_eq!((failure.why, failure.blames_endpoint), (format!("status {status}"), blames_endpoint));
        }
        for outcome in [None, Some(Err(PostError::Failed("connection refused".to_owned())))] {
            assert!(failure(judge(outcome, Millis(0))).blames_endpoint);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_has_a_bound() {
        let day = 24 * 60 * 60;
        for (text, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("999999999", Some(day)),
            ("99999999999999999999999", Some(day)),
            ("Thu, 01 Jan 1970 00:02:00 GMT", Some(20)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Fri, 01 Jan 2100 00:00:00 GMT", Some(day)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
        ] {
            let found = failure(answered(503, Some(text))).retry_after;
            assert_eq!(found, seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn pauses_double_within_bounds_and_keep_to_retry_after() {
        let mut rng = fastrand::Rng::with_seed(7);
        for (failures, most) in [(1, 5), (2, 10), (3, 20), (10, 2560), (11, 3600), (u32::MAX, 3600)] {
            for _ in 0..100 {
                let pause = pause(failures, None, &mut rng);
                let most = Duration::from_secs(most);
                assert!(pause >= most / 2 && pause <= most, "{failures}: {pause:?}");
            }
        }
        let asked = Some(Duration::from_secs(7200));
        assert_eq!(pause(1, asked, &mut rng), Duration::from_secs(7200));
        let all: Vec<_> = (0..20).map(|_| pause(5, None, &mut rng)).collect();
        assert!(all.iter().any(|one| *one != all[0]), "no jitter");
    }
}
