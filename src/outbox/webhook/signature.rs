//! The headers by which a receiver knows that a request is the proxy's, and no old repeat: those
//! of the Standard Webhooks, version 1 (HMAC-SHA256).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue};
use ring::hmac;

use crate::{
    config::SigningKey,
    outbox::record::{EventId, Millis},
};

/// The headers that identify and sign a request with `body`, at the time of its attempt. Each key
/// has its signature, so that receivers can change keys one by one.
pub(super) fn headers(event: &EventId, now: Millis, body: &str, keys: &[SigningKey]) -> HeaderMap {
    let seconds = (now.0 / 1000).to_string();
    let signatures: Vec<String> = keys.iter().map(|key| signature(key, event.as_str(), &seconds, body)).collect();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("webhook-id", event.as_str()),
        ("webhook-timestamp", &*seconds),
        ("webhook-signature", &*signatures.join(" ")),
    ] {
        // Ids are letters and digits of our own, and Base64 and numbers are ASCII.
        headers.insert(name, HeaderValue::from_str(value).expect("the value is visible ASCII"));
    }
    headers
}

/// `v1,` and the Base64 of the HMAC of id, time and body, with dots between.
fn signature(key: &SigningKey, id: &str, seconds: &str, body: &str) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()));
    for part in [id, ".", seconds, ".", body] {
        context.update(part.as_bytes());
    }
    format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn key(base64: &str) -> SigningKey {
        Secret::new(BASE64_STANDARD.decode(base64).unwrap().into())
    }

    /// The vector that the libraries of the Standard Webhooks are tested with.
    #[test]
    fn the_published_vector_of_standard_webhooks_is_met() {
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek".into(), r#"{"test": 2432232314}"#);
        let keys = [key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
        let headers = headers(&id, Millis(1_614_265_330_999), body, &keys);
        assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(headers["webhook-signature"], "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_key_signs_and_the_newest_comes_first() {
        let keys = [key("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="), key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
        let id = EventId::from("msg_p5jXN8AQM9LWM0D4loKWxJek");
        let signed = |keys| {
            let headers = headers(&id, Millis(1_614_265_330_000), r#"{"test": 2432232314}"#, keys);
            headers["webhook-signature"].to_str().unwrap().to_owned()
        };
        let both = signed(&keys);
        assert_eq!(both, format!("{} {}", signed(&keys[..1]), signed(&keys[1..])));
        assert!(both.ends_with(" v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="), "{both}");
    }

    #[test]
    fn id_time_and_body_each_change_the_signature() {
        let keys = [key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
        let signed = |id: &str, at, body| headers(&id.into(), Millis(at), body, &keys)["webhook-signature"].clone();
        let one = signed("evt_1", 5000, "{}");
        assert_eq!(one, signed("evt_1", 5999, "{}"), "the same second");
        for other in [signed("evt_2", 5000, "{}"), signed("evt_1", 6000, "{}"), signed("evt_1", 5000, "{ }")] {
            assert_ne!(one, other);
        }
    }
}
