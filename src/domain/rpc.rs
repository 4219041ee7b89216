//! The request side of the JSON-RPC envelope: finds the call in a body without building a tree.
//!
//! Nodes written in Go match keys without regard to case. So an envelope with a repeated key, or
//! with a key that differs from a known one only in case, could mean one call to the proxy and
//! another to the node. Such requests are refused.

use std::borrow::Cow;

use super::json::{Malformed, Scanner, Str};

/// The longest name of a method, in bytes.
const MAX_NAME: usize = 128;

/// A call, borrowed from its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The whole request object, byte for byte.
    pub raw: &'a [u8],
    /// The id as the client wrote it. `None`: a notification, which gets no answer.
    pub id: Option<&'a [u8]>,
    /// The decoded method name.
    pub method: Cow<'a, str>,
    /// The params as the client wrote them.
    pub params: Option<&'a [u8]>,
}

/// A JSON value that is not a call, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotARequest<'a> {
    /// The id to answer with, where one could be told.
    pub id: Option<&'a [u8]>,
    /// The mistake.
    pub why: &'static str,
}

/// The content of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// A single request.
    Single(Result<Request<'a>, NotARequest<'a>>),
    /// An array of requests, in its order; may be empty.
    Batch(Vec<Result<Request<'a>, NotARequest<'a>>>),
}

/// Finds the calls in `text`. A batch is read up to `max_batch` entries and one more, so that the
/// caller sees a batch that is too long.
///
/// # Errors
/// When the text is not JSON.
pub fn peek(text: &[u8], max_batch: usize) -> Result<Body<'_>, Malformed> {
    let text =
        std::str::from_utf8(text).map_err(|error| Malformed { what: "invalid UTF-8", at: error.valid_up_to() })?;
    let mut scanner = Scanner::new(text.as_bytes());
    scanner.space();
    if scanner.peek() != Some(b'[') {
        let entry = entry(&mut scanner, text)?;
        scanner.end()?;
        return Ok(Body::Single(entry));
    }
    scanner.take(b'[');
    scanner.space();
    let mut entries = Vec::new();
    if !scanner.take(b']') {
        loop {
            scanner.space();
            entries.push(entry(&mut scanner, text)?);
            if entries.len() > max_batch {
                return Ok(Body::Batch(entries));
            }
            scanner.space();
            if scanner.take(b']') {
                break;
            }
            scanner.expect(b',', "expected a comma or a closing bracket")?;
        }
    }
    scanner.end()?;
    Ok(Body::Batch(entries))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Version,
    Id,
    Method,
    Params,
    Other,
}

/// Finds a key by its decoded name: `Err` for a known key in other letters.
fn key_of(key: &Str<'_>) -> Result<Key, &'static str> {
    const KNOWN: [(&str, Key); 4] =
        [("jsonrpc", Key::Version), ("id", Key::Id), ("method", Key::Method), ("params", Key::Params)];
    if let Some((_, known)) = KNOWN.iter().find(|(known, _)| known.as_bytes() == key.raw) {
        return Ok(*known);
    }
    let Some(name) = key.decode() else { return Err("a key holds half of a surrogate pair") };
    if let Some((_, key)) = KNOWN.iter().find(|(known, _)| *known == name) {
        return Ok(*key);
    }
    // The letters that fold to ASCII ones under Unicode's simple case folding, which Go applies.
    let folds = |name: &str, known: &str| {
        name.chars()
            .map(|c| match c {
                '\u{17f}' => 's',
                '\u{212a}' => 'k',
                c => c.to_ascii_lowercase(),
            })
            .eq(known.chars())
    };
    if KNOWN.iter().any(|(known, _)| folds(&name, known)) {
        return Err("a key differs from method, id, params or jsonrpc only in case");
    }
    Ok(Key::Other)
}

/// Reads one value and tells whether it is a request.
fn entry<'a>(scanner: &mut Scanner<'a>, text: &'a str) -> Result<Result<Request<'a>, NotARequest<'a>>, Malformed> {
    let start = scanner.offset();
    if !scanner.take(b'{') {
        scanner.value()?;
        return Ok(Err(NotARequest { id: None, why: "a request is an object" }));
    }
    let (mut id, mut method, mut params, mut version) = (None, None, None, None);
    let mut wrong = None;
    let mut first = true;
    while let Some(name) = scanner.member(first)? {
        first = false;
        let from = scanner.offset();
        scanner.value()?;
        let value = &text[from..scanner.offset()];
        let slot = match key_of(&name) {
            Ok(Key::Version) => &mut version,
            Ok(Key::Id) => &mut id,
            Ok(Key::Method) => &mut method,
            Ok(Key::Params) => &mut params,
            Ok(Key::Other) => continue,
            Err(why) => {
                wrong = Some(why);
                continue;
            }
        };
        if slot.replace(value).is_some() {
            wrong = Some("a key is repeated");
        }
    }
    let raw = &text.as_bytes()[start..scanner.offset()];
    let [id, params] = [id, params].map(|value: Option<&str>| value.map(str::as_bytes));
    // An id of a kind that no answer could carry is not echoed.
    let plain = |id: &&[u8]| !matches!(id[0], b'{' | b'[' | b't' | b'f');
    let echo = id.filter(plain).filter(|_| wrong != Some("a key is repeated"));
    let refuse = |why| Ok(Err(NotARequest { id: echo, why }));
    if let Some(why) = wrong {
        return refuse(why);
    }
    if id.is_some_and(|id| !plain(&id)) {
        return refuse("id is a string, a number or null");
    }
    if version.is_some_and(|version| version != "\"2.0\"") {
        return refuse("jsonrpc is \"2.0\"");
    }
    if params.is_some_and(|params| !matches!(params[0], b'[' | b'{' | b'n')) {
        return refuse("params is an array or an object");
    }
    let Some(method) = method else { return refuse("method is missing") };
    let Some(method) = method.strip_prefix('"').and_then(|method| method.strip_suffix('"')) else {
        return refuse("method is a string");
    };
    // Most names have no escapes.
    if is_plain_name(method) {
        return Ok(Ok(Request { raw, id, method: method.into(), params }));
    }
    match (Str { raw: method.as_bytes(), escaped: method.contains('\\') }).decode() {
        Some(method) if is_plain_name(&method) => Ok(Ok(Request { raw, id, method, params })),
        Some(_) => refuse("method is 1 to 128 letters, digits, dots, colons, hyphens and underscores"),
        None => refuse("method is a string"),
    }
}

/// Whether all nodes read `method` as written: some nodes trim names, and would find a method that
/// the proxy blocks.
fn is_plain_name(method: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-');
    (1..=MAX_NAME).contains(&method.len()) && method.bytes().all(plain)
}

impl<'a> Request<'a> {
    /// The element of a params array at `index`, as the client wrote the element.
    pub fn param(&self, index: usize) -> Option<&'a [u8]> {
        self.before_param(index)?.value().ok()
    }

    /// A cursor at the first byte of the element of a params array at `index`; at the closing
    /// bracket, if the array is empty.
    pub fn before_param(&self, index: usize) -> Option<Scanner<'a>> {
        let mut scanner = Scanner::new(self.params?);
        scanner.space();
        scanner.take(b'[').then_some(())?;
        for _ in 0..index {
            scanner.space();
            scanner.value().ok()?;
            scanner.space();
            scanner.take(b',').then_some(())?;
        }
        scanner.space();
        Some(scanner)
    }

    /// The text of a string among the params.
    pub fn text_param(&self, index: usize) -> Option<Cow<'a, str>> {
        Scanner::new(self.param(index)?).string().ok()?.decode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn single(text: &str) -> Result<Request<'_>, String> {
        match peek(text.as_bytes(), 10) {
            Ok(Body::Single(Ok(request))) => Ok(request),
            Ok(Body::Single(Err(wrong))) => Err(format!("{} {:?}", wrong.why, wrong.id.map(String::from_utf8_lossy))),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn ids_and_params_are_found_byte_for_byte() {
        for id in ["1", "-0", "1.50e400", "123456789012345678901234567890", "\"a\\u0041\\\"}\"", "null", "\"\""] {
            let text =
                format!(r#" {{ "id" : {id} ,"params":[ {{"to":"}}{{" }} ], "method":"eth_call","jsonrpc":"2.0" }} "#);
            let request = single(&text).unwrap();
            assert_eq!(request.id, Some(id.as_bytes()));
            assert_eq!(request.params, Some(&br#"[ {"to":"}{" } ]"#[..]));
            assert_eq!(request.method, "eth_call");
            assert_eq!(request.raw, text.trim().as_bytes());
        }
    }

    #[test]
    fn escapes_in_keys_and_methods_hide_nothing() {
        let request = single(r#"{"\u006dethod":"admin\u005fpeers","\u0069d":7}"#).unwrap();
        assert_eq!((request.method.as_ref(), request.id), ("admin_peers", Some(&b"7"[..])));
    }

    #[test]
    fn ambiguous_envelopes_are_refused() {
        for text in [
            r#"{"method":"eth_chainId","Method":"admin_addPeer","id":1}"#,
            r#"{"method":"eth_chainId","method":"admin_addPeer","id":1}"#,
            r#"{"method":"eth_chainId","\u004dethod":"admin_addPeer","id":1}"#,
            r#"{"method":"eth_chainId","param\u017f":[],"id":1}"#,
            r#"{"method":"eth_chainId","paramſ":[],"id":1}"#,
            r#"{"method":"eth_chainId","ID":2,"id":1}"#,
            r#"{"method":"eth_chainId","JSONRPC":"2.0","id":1}"#,
        ] {
            assert!(single(text).is_err(), "{text}");
        }
        let twice = single(r#"{"method":"a","id":1,"id":2}"#).unwrap_err();
        assert_eq!(twice, "a key is repeated None");
    }

    #[test]
    fn a_method_whose_name_a_node_might_change_is_refused() {
        let long = "m".repeat(129);
        for name in
            ["", " admin_peers", "admin_peers ", "admin\\u0000_peers", "\\tadmin_peers", "admin/peers", "é", &long]
        {
            let refused = single(&format!(r#"{{"method":"{name}","id":1}}"#)).unwrap_err();
            assert!(refused.starts_with("method is 1 to 128"), "{name}: {refused}");
        }
        for name in ["eth_call", "a", "web3.sha3", "ns:method", "x-y_Z9", &long[..128]] {
            assert_eq!(single(&format!(r#"{{"method":"{name}","id":1}}"#)).unwrap().method, name);
        }
    }

    #[test]
    fn json_that_is_no_request_is_refused_with_its_id() {
        for (text, expected) in [
            ("1", "a request is an object None"),
            ("{}", "method is missing None"),
            (r#"{"id":5}"#, "method is missing Some(\"5\")"),
            (r#"{"id":"x","method":1}"#, "method is a string Some(\"\\\"x\\\"\")"),
            (r#"{"id":{},"method":"a"}"#, "id is a string, a number or null None"),
            (r#"{"id":1,"method":"a","params":"x"}"#, "params is an array or an object Some(\"1\")"),
            (r#"{"id":1,"method":"a","jsonrpc":"1.0"}"#, "jsonrpc is \"2.0\" Some(\"1\")"),
            (r#"{"id":1,"method":"\ud800"}"#, "method is a string Some(\"1\")"),
        ] {
            assert_eq!(single(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn a_body_that_is_not_json_is_malformed() {
        for text in ["", "{", r#"{"id":1}x"#, "\u{feff}{}", "[", "[1,]", r#"{"id":1,}"#, r#"{"a":"#] {
            assert!(peek(text.as_bytes(), 10).is_err(), "{text}");
        }
        assert_eq!(peek(b"{\"\xff\":1}", 10).unwrap_err().what, "invalid UTF-8");
        assert!(peek("[".repeat(1_000_000).as_bytes(), 10).is_err());
    }

    #[test]
    fn a_batch_keeps_its_order_and_may_mix_anything() {
        let text = r#"[ {"id":1,"method":"a"} , 5, {"method":"b"},{"id":null,"method":"c"} ]"#;
        let Ok(Body::Batch(entries)) = peek(text.as_bytes(), 10) else { panic!("not a batch") };
        let seen: Vec<_> =
            entries.iter().map(|e| e.as_ref().map(|r| (r.method.as_ref(), r.id)).map_err(|e| e.why)).collect();
        let expected =
            [Ok(("a", Some(&b"1"[..]))), Err("a request is an object"), Ok(("b", None)), Ok(("c", Some(&b"null"[..])))];
        assert_eq!(seen, expected);
        assert_eq!(peek(b"[]", 10), Ok(Body::Batch(vec![])));
        let Ok(Body::Batch(entries)) = peek(b"[1,1,1,1,1", 3) else { panic!("not a batch") };
        assert_eq!(entries.len(), 4);
    }

    #[test]
    fn params_are_reached_by_index() {
        let request = single(r#"{"method":"m","params":[ "0x1" , {"a":[1]}, true]}"#).unwrap();
        assert_eq!(request.text_param(0).as_deref(), Some("0x1"));
        assert_eq!(request.param(1), Some(&br#"{"a":[1]}"#[..]));
        assert_eq!(request.param(3), None);
        assert_eq!(single(r#"{"method":"m","params":[]}"#).unwrap().param(0), None);
        assert_eq!(single(r#"{"method":"m"}"#).unwrap().param(0), None);
    }
}
