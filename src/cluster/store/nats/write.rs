//! Writes: a message that is stored only if the key's last revision is the expected one.

use async_nats::{
    HeaderMap, HeaderValue, Request,
    client::RequestErrorKind,
    header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM, NATS_MESSAGE_TTL},
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    link::Link,
    read::{KV_OPERATION, Last},
};
use crate::cluster::store::{Key, MAX_VALUE, Revision, Ttl, WriteError};

/// Codes of the server for another last revision than the expected one: with the number in the
/// text, and without.
const CONFLICTS: [u64; 2] = [10_071, 10_164];
/// Codes with which the server refuses before anything is stored: no quorum, too little room, too
/// long, no stream, JetStream off, a time to live that is not allowed.
const REFUSALS: [u64; 11] = [10_002, 10_008, 10_023, 10_028, 10_039, 10_047, 10_054, 10_059, 10_076, 10_165, 10_166];
/// A code with which the server refuses for many reasons. Of a full bucket it says so.
const FAILED: u64 = 10_077;
/// The words for a full bucket.
const FULL: &str = "maximum bytes exceeded";
/// The revision of a key without any.
const NONE: Revision = Revision::new(0);

/// A write's content.
pub(super) enum Write {
    Entry { value: Bytes, ttl: Option<Ttl> },
    Deletion,
}

/// The server's answer to a write.
#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Link {
    /// Writes an entry where there is none. A deletion of the key holds the key's last revision, so
    /// that is replaced in a second step.
    pub(super) async fn create(&self, key: &Key, value: Bytes, ttl: Option<Ttl>) -> Result<Revision, WriteError> {
        let first = self.write(key, NONE, Write::Entry { value: value.clone(), ttl }).await;
        let Err(WriteError::Conflict { .. }) = first else { return first };
        match self.last(key).await {
            Ok(Some(Last::Deletion(seen))) => self.write(key, seen, Write::Entry { value, ttl }).await,
            Ok(Some(Last::Entry(entry))) => Err(WriteError::Conflict { found: Some(entry.revision) }),
            // Gone since: another attempt would meet no conflict.
            Ok(None) => Err(WriteError::Conflict { found: None }),
            Err(error) => Err(WriteError::Unavailable(error.to_string())),
        }
    }

    pub(super) async fn write(&self, key: &Key, seen: Revision, write: Write) -> Result<Revision, WriteError> {
        self.write_at(key.as_str(), seen, write).await
    }

    /// Writes under `place`, which is a key or nothing that is read as one.
    pub(super) async fn write_at(&self, place: &str, seen: Revision, write: Write) -> Result<Revision, WriteError> {
        self.ready().map_err(WriteError::Unavailable)?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(seen.get()));
        headers.insert(NATS_EXPECTED_STREAM, self.stream.as_str());
        let (value, ttl) = match write {
            Write::Entry { value, ttl } => (value, ttl),
            Write::Deletion => {
                headers.insert(KV_OPERATION, "DEL");
                (Bytes::new(), Some(Ttl::at_least(self.deletion_ttl())))
            }
        };
        if value.len() > MAX_VALUE {
            let text = format!("the value has {} bytes, of {MAX_VALUE} at most", value.len());
            return Err(WriteError::Malformed(text));
        }
        if let Some(ttl) = ttl.filter(|_| self.can_expire()) {
            headers.insert(NATS_MESSAGE_TTL, HeaderValue::from(ttl.as_secs()));
        }
        let request = Request::new().headers(headers).payload(value);
        let sent = self.client.send_request(format!("{}{place}", self.subjects), request);
        // The client's own deadline does not cover the wait for the client's queue.
        let longest = self.options.timeout.saturating_add(self.options.timeout / 4);
        let Ok(answer) = timeout(longest, sent).await else {
            return Err(WriteError::Ambiguous(self.because("no ack in time")));
        };
        let message = answer.map_err(|error| {
            let text = self.because(&error.to_string());
            match error.kind() {
                // Sent to no server that holds the bucket.
                RequestErrorKind::NoResponders
                | RequestErrorKind::InvalidSubject
                | RequestErrorKind::MaxPayloadExceeded => WriteError::Unavailable(text),
                RequestErrorKind::TimedOut | RequestErrorKind::Other => WriteError::Ambiguous(text),
            }
        })?;
        outcome(&message.payload)
    }
}

/// Reads the ack of a write.
pub(super) fn outcome(payload: &[u8]) -> Result<Revision, WriteError> {
    let ack: Ack = serde_json::from_slice(payload)
        .map_err(|error| WriteError::Ambiguous(format!("the ack means nothing: {error}")))?;
    match ack.error {
        None if ack.seq > 0 => Ok(Revision::new(ack.seq)),
        None => Err(WriteError::Ambiguous("the ack has no revision".to_owned())),
        Some(Refusal { err_code, description }) if CONFLICTS.contains(&err_code) => {
            let number = description.rsplit(' ').next().and_then(|text| text.parse().ok());
            let found = number.filter(|number| *number > 0).map(Revision::new);
            Err(WriteError::Conflict { found })
        }
        Some(Refusal { err_code, description })
            if REFUSALS.contains(&err_code) || (err_code == FAILED && description.contains(FULL)) =>
        {
            Err(WriteError::Unavailable(format!("{description} ({err_code})")))
        }
        Some(Refusal { err_code, description }) => Err(WriteError::Ambiguous(format!("{description} ({err_code})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{WriteError, outcome};
    use crate::cluster::store::Revision;

    fn refused(code: u64, text: &str) -> String {
        format!(r#"{{"error":{{"code":400,"err_code":{code},"description":"{text}"}},"seq":0}}"#)
    }

    #[test]
    fn ack_gives_its_revision() {
        let ack = br#"{"stream":"KV_steadfast-a","seq":7,"domain":"hub"}"#;
        assert_eq!(outcome(ack), Ok(Revision::new(7)));
    }

    #[test]
    fn another_last_revision_is_a_conflict() {
        let found = Some(Revision::new(5));
        for (code, text, found) in [
            (10_071, "wrong last sequence: 5", found),
            (10_071, "wrong last sequence: 0", None),
            (10_164, "wrong last sequence", None),
        ] {
            let conflict = Err(WriteError::Conflict { found });
            assert_eq!(outcome(refused(code, text).as_bytes()), conflict);
        }
    }

    #[test]
    fn known_refusal_was_not_applied() {
        for (code, text) in [(10_008, "JetStream system temporarily unavailable"), (10_077, "maximum bytes exceeded")] {
            let answer = refused(code, text);
            assert!(matches!(outcome(answer.as_bytes()), Err(WriteError::Unavailable(_))), "{text}");
        }
    }

    #[test]
    fn unknown_answer_may_have_been_applied() {
        let (unknown, failed) = (refused(19_999, "of a later server"), refused(10_077, "input/output error"));
        for answer in [unknown.as_str(), &failed, "", "+OK", "{}", "[]", r#"{"seq":"7"}"#] {
            let result = outcome(answer.as_bytes());
            assert!(matches!(result, Err(WriteError::Ambiguous(_))), "{answer}: {result:?}");
        }
    }
}
