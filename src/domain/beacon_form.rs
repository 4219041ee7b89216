//! Whether an answer of the beacon API is the word of a node.
//!
//! Rule: an answer counts as a node's word only in the API's form, whatever its status. An error of
//! the API is JSON with a code and a message. A success of a message has no body, or one of the few
//! that nodes send; an answer to a question has data. Any other answer comes from a gateway, or
//! cannot be told from one, and another node is asked. Reason: gateways answer in the place of
//! nodes with every status, and a gateway's page says nothing of the request. Example: an ingress
//! without a backend answers a vote with 404 and a page. The vote goes to another node, as after a
//! lost connection; a 404 in the API's form would have said that the node lacks the route.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// A longer text is judged by its beginning: a long one has some content.
const JUDGED_WHOLE: usize = 256 * 1024;

/// The content that a success must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The status alone: it is the whole answer.
    Status,
    /// The success of a message.
    Success,
    /// The data asked for.
    Data,
}

/// The body of an answer, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// All of the body.
    Whole(&'a [u8]),
    /// The beginning of the body.
    Begin(&'a [u8]),
    /// The body is compressed.
    Packed,
}

/// An answer, as far as its form goes.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The value of `Content-Type`, if there is one.
    pub kind: Option<&'a [u8]>,
    /// The body.
    pub body: Body<'a>,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The API's form: the word of a node.
    Node,
    /// A success in the API's form with nothing in it, or in words that no node is known to say.
    /// The answer is the client's where no node has a better one.
    Empty,
    /// Another form: a gateway's page or plain text, an error inside a success, or nothing at all.
    Foreign,
}

impl Form {
    /// Judges an answer to a request whose success has the content `wanted`.
    pub fn of(reply: &Reply<'_>, wanted: Wanted) -> Self {
        match (reply.status, wanted) {
            (304, _) => Self::Node,
            (300..=399, _) => Self::Foreign,
            (_, Wanted::Status) if reply.is_without_body() && !reply.is_kind(b"text/html") => Self::Node,
            (..300, Wanted::Status) if reply.is_without_body() => Self::Node,
            (..300, Wanted::Status) => Self::node_if(!reply.is_of_another_form()),
            (..300, Wanted::Success) => reply.success(),
            (..300, Wanted::Data) => reply.data(),
            _ => Self::node_if(reply.is_error()),
        }
    }

    fn node_if(is_node: bool) -> Self {
        if is_node { Self::Node } else { Self::Foreign }
    }

    /// Whether an answer with this status and form leaves open whether a message was passed on: a
    /// gateway gave the node up, or the node failed in the middle.
    pub fn may_have_passed_on(self, status: u16) -> bool {
        match status {
            ..300 | 408 | 499 | 500 | 502 | 504 | 520.. => true,
            501.. => self == Self::Foreign,
            _ => false,
        }
    }

    /// Whether the cause of an answer that is of its node may pass within the time of a request.
    pub fn is_passing(self, status: u16) -> bool {
        match status {
            ..300 | 408 | 500.. => true,
            // A gateway has no node for the request just then.
            404 | 421 | 425 | 499 => self == Self::Foreign,
            _ => false,
        }
    }
}

/// Whether a body of this type, with this beginning, is a page: `<` and then a name, `!` or `?`.
/// Bytes in SSZ may begin so by chance: there the name must be one of a page.
pub fn is_page(kind: Option<&[u8]>, begin: &[u8]) -> bool {
    if is_of_kind(kind, b"text/html") {
        return true;
    }
    let bytes = begin.iter().skip_while(|byte| byte.is_ascii_whitespace() || matches!(byte, 0xef | 0xbb | 0xbf));
    let begin: Vec<u8> = bytes.take(9).map(u8::to_ascii_lowercase).collect();
    if is_of_kind(kind, b"application/octet-stream") {
        return [&b"<!doctype"[..], b"<html", b"<?xml"].iter().any(|page| begin.starts_with(page));
    }
    begin.first() == Some(&b'<') && begin.get(1).is_none_or(|byte| byte.is_ascii_alphabetic() || b"!?".contains(byte))
}

/// Whether a text begins as an error inside a success: the first member of the object says so.
pub fn begins_as_an_error(begin: &[u8]) -> bool {
    let begin = String::from_utf8_lossy(&begin[..begin.len().min(256)]);
    let Some((name, value)) = begin.trim_start().strip_prefix('{').and_then(|text| text.split_once(':')) else {
        return false;
    };
    let (name, value) = (name.trim().trim_matches('"'), value.trim_start().trim_start_matches('"'));
    let is_one_of = |words: &[&str]| words.iter().any(|word| value.starts_with(word));
    let number: String = value.chars().take_while(char::is_ascii_digit).collect();
    match name {
        "code" | "status" | "statusCode" => {
            number.parse::<u64>().is_ok_and(|status| (300..1000).contains(&status)) || is_one_of(&["error", "fail"])
        }
        "success" | "ok" => is_one_of(&["false"]),
        name => ERRORS.contains(&name) && !value.is_empty() && !is_one_of(&["null", "false", "[]", "{}"]),
    }
}

/// Whether a value of `Content-Type` names this type.
pub fn is_of_kind(value: Option<&[u8]>, kind: &[u8]) -> bool {
    let value = value.unwrap_or_default().split(|&byte| byte == b';').next();
    value.is_some_and(|value| value.trim_ascii().eq_ignore_ascii_case(kind))
}

/// Whether a value of `Content-Type` names JSON, or an error in JSON.
pub fn is_json(value: Option<&[u8]>) -> bool {
    is_of_kind(value, b"application/json") || is_of_kind(value, b"application/problem+json")
}

impl Reply<'_> {
    fn is_kind(&self, kind: &[u8]) -> bool {
        is_of_kind(self.kind, kind)
    }

    fn is_without_body(&self) -> bool {
        self.body == Body::Whole(b"")
    }

    fn begin(&self) -> &[u8] {
        match self.body {
            Body::Whole(bytes) | Body::Begin(bytes) => bytes,
            Body::Packed => b"",
        }
    }

    /// Whether the body is a page, or of a type that the API does not have.
    fn is_of_another_form(&self) -> bool {
        if is_page(self.kind, self.begin()) {
            return true;
        }
        let is_ours =
            || is_json(self.kind) || self.is_kind(b"application/octet-stream") || self.is_kind(b"text/event-stream");
        !self.is_without_body() && self.kind.is_some() && !is_ours()
    }

    /// Whether this is an error in the API's form. Of a long one the beginning counts.
    fn is_error(&self) -> bool {
        if is_page(self.kind, self.begin()) || (self.kind.is_some() && !is_json(self.kind)) {
            return false;
        }
        match self.body {
            Body::Whole(text) => Signs::read(text).is_some_and(|signs| signs.is_problem),
            Body::Begin(text) => match text.trim_ascii_start().first() {
                Some(first) => *first == b'{',
                None => self.kind.is_some(),
            },
            Body::Packed => self.kind.is_some(),
        }
    }

    fn success(&self) -> Form {
        if self.is_without_body() {
            return Form::Node;
        }
        if self.is_of_another_form() {
            return Form::Foreign;
        }
        let text = match self.body {
            Body::Packed => return Form::node_if(is_json(self.kind)),
            Body::Begin(_) => return Form::Foreign,
            Body::Whole(text) => text,
        };
        if text.trim_ascii().is_empty() {
            return Form::Node;
        }
        match Signs::read(text) {
            None => Form::Foreign,
            Some(signs) if signs.is_error => Form::Foreign,
            Some(signs) if signs.is_success => Form::Node,
            Some(_) => Form::Empty,
        }
    }

    fn data(&self) -> Form {
        if self.is_of_another_form() {
            return Form::Foreign;
        }
        if self.is_without_body() {
            let is_of_a_node = self.kind.is_none() || is_json(self.kind);
            return if is_of_a_node { Form::Empty } else { Form::Foreign };
        }
        let has_type = self.kind.is_some();
        if has_type && !is_json(self.kind) {
            return Form::Node;
        }
        match self.body {
            Body::Whole(text) if text.len() <= JUDGED_WHOLE => match Signs::read(text) {
                Some(signs) if signs.is_error => Form::Foreign,
                Some(signs) if signs.is_null => Form::Empty,
                None if has_type => Form::Foreign,
                _ => Form::Node,
            },
            _ => Form::Node,
        }
    }
}

/// The signs of a text in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Signs {
    /// The text is an error inside a success.
    is_error: bool,
    /// The data is null.
    is_null: bool,
    /// The text is one by which nodes say that a message was taken.
    is_success: bool,
    /// The text is an error in the API's form.
    is_problem: bool,
}

/// Members by which gateways name an error.
const ERRORS: [&str; 12] = [
    "error",
    "errors",
    "failures",
    "detail",
    "fault",
    "Message",
    "errorMessage",
    "error_code",
    "error_msg",
    "error_message",
    "errorCode",
    "title",
];

impl Signs {
    /// `None` where the text is not in JSON, or not whole.
    fn read(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        if text.first() != Some(&b'{') {
            let IgnoredAny = serde_json::from_slice(text).ok()?;
            let is_null = text == b"null";
            return Some(Self { is_null, is_success: is_null || text == b"[]", ..Self::default() });
        }
        let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(text).ok()?;
        let field = |name| fields.get(name).map(|value| value.get());
        let is_false = |name| field(name) == Some("false");
        let has = |name| field(name).is_some_and(|value| !matches!(value, "null" | "false" | "\"\"" | "[]" | "{}"));
        let number = |name| field(name)?.trim_matches('"').parse::<u64>().ok();
        let is_bad = |name| number(name).is_some_and(|status| status >= 300);
        let is_failure = |word: &str| ["\"error\"", "\"fail\"", "\"failed\"", "\"failure\""].contains(&word);
        let is_text = |name| field(name).is_some_and(|value| value.starts_with('"'));
        let data = field("data");
        let has_code = number("code").is_some();
        let is_error = data.is_none_or(|data| data == "null")
            && (["code", "status", "statusCode"].into_iter().any(is_bad)
                || ERRORS.into_iter().any(has)
                || ["success", "ok"].into_iter().any(is_false)
                || field("status").is_some_and(is_failure)
                || (has("message") && !has_code));
        let is_taken = number("code").is_some_and(|code| (200..300).contains(&code));
        Some(Self {
            is_error,
            is_null: data == Some("null"),
            is_success: !is_error && (fields.is_empty() || data.is_some() || is_taken),
            is_problem: is_text("message")
                && (has_code
                    || number("statusCode").is_some()
                    || field("failures").is_some_and(|is| is.starts_with('['))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: Option<&[u8]> = Some(b"application/json");
    const PAGE: Option<&[u8]> = Some(b"text/html; charset=utf-8");
    const TEXT: Option<&[u8]> = Some(b"text/plain");
    const SSZ: Option<&[u8]> = Some(b"application/octet-stream");

    fn form(status: u16, kind: Option<&[u8]>, body: &str, wanted: Wanted) -> Form {
        Form::of(&Reply { status, kind, body: Body::Whole(body.as_bytes()) }, wanted)
    }

    #[test]
    fn an_error_is_a_nodes_only_in_the_apis_form() {
        let ours = r#"{"code":404,"message":"no such block"}"#;
        let list = r#"{"message":"some failed","failures":[]}"#;
        for (kind, body, is_node) in [
            (JSON, ours, true),
            (Some(&b"Application/JSON; charset=utf-8"[..]), ours, true),
            (Some(b"application/problem+json"), ours, true),
            (None, ours, true),
            (JSON, r#"{"code":"404","message":"x","stacktraces":[]}"#, true),
            (JSON, r#"{"statusCode":404,"error":"Not Found","message":"x"}"#, true),
            (JSON, list, true),
            (PAGE, ours, false),
            (TEXT, ours, false),
            (JSON, "<html>", false),
            (JSON, "", false),
            (None, "", false),
            (JSON, "{}", false),
            (JSON, "\"first\"", false),
            (JSON, r#"{"message":"no Route matched with those values"}"#, false),
            (JSON, r#"{"success":false,"errors":[{"code":1020}]}"#, false),
            (TEXT, "default backend - 404", false),
            (PAGE, "<html><h1>406 Not Acceptable</h1>", false),
            (None, "404 page not found", false),
        ] {
            // The status decides nothing.
            for status in [400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 421, 422, 451, 500, 503, 520] {
                for wanted in [Wanted::Success, Wanted::Data] {
                    let text = String::from_utf8_lossy(kind.unwrap_or_default());
                    assert_eq!(form(status, kind, body, wanted) == Form::Node, is_node, "{status} {text} {body}");
                }
            }
        }
        for (kind, begin, is_node) in
            [(JSON, "{\"code\"", true), (JSON, "", true), (JSON, " <h", false), (None, "", false)]
        {
            let reply = Reply { status: 400, kind, body: Body::Begin(begin.as_bytes()) };
            assert_eq!(Form::of(&reply, Wanted::Success) == Form::Node, is_node, "{begin}");
        }
    }

    #[test]
    fn a_success_of_a_message_is_one_that_nodes_give() {
        for (kind, body, expected) in [
            (PAGE, "", Form::Node),
            (JSON, "", Form::Node),
            (JSON, " \n", Form::Node),
            (JSON, "null", Form::Node),
            (JSON, "{}", Form::Node),
            (JSON, "[]", Form::Node),
            (JSON, r#"{"data":{"code":500}}"#, Form::Node),
            (JSON, r#"{"code":202,"message":"broadcast, but invalid"}"#, Form::Node),
            (JSON, r#"{"status":"accepted"}"#, Form::Empty),
            (JSON, "\"Service Unavailable\"", Form::Empty),
            (JSON, "false", Form::Empty),
            (JSON, r#"{"jsonrpc":"2.0","id":1,"result":null}"#, Form::Empty),
            (JSON, r#"{"message":"no upstream","code":0}"#, Form::Empty),
            (JSON, r#"{"success":false}"#, Form::Foreign),
            (JSON, r#"{"Message":"Endpoint request timed out"}"#, Form::Foreign),
            (JSON, r#"{"detail":"upstream unavailable"}"#, Form::Foreign),
            (JSON, r#"{"fault":{"faultstring":"quota"}}"#, Form::Foreign),
            (JSON, r#"{"error_code":1020}"#, Form::Foreign),
            (JSON, "Service Unavailable", Form::Foreign),
            (TEXT, "accepted", Form::Foreign),
            (SSZ, "\u{7}\u{7}", Form::Foreign),
            (None, "<?xml version=\"1.0\"?>", Form::Foreign),
        ] {
            assert_eq!(form(200, kind, body, Wanted::Success), expected, "{body}");
        }
        let packed = |kind| Form::of(&Reply { status: 200, kind, body: Body::Packed }, Wanted::Success);
        assert_eq!((packed(JSON), packed(None)), (Form::Node, Form::Foreign));
    }

    #[test]
    fn an_answer_to_a_question_has_data() {
        for (status, kind, body, expected) in [
            (200, JSON, r#"{"data":[]}"#, Form::Node),
            (200, JSON, "[]", Form::Node),
            (200, JSON, "{}", Form::Node),
            (200, None, "not checked", Form::Node),
            (200, SSZ, "<a", Form::Node),
            (200, JSON, "null", Form::Empty),
            (200, JSON, r#"{"data":null}"#, Form::Empty),
            (204, None, "", Form::Empty),
            (200, JSON, "", Form::Empty),
            (200, PAGE, "", Form::Foreign),
            (200, SSZ, "<!DOCTYPE html>", Form::Foreign),
            (200, TEXT, "hello", Form::Foreign),
            (200, JSON, "hello", Form::Foreign),
            (200, JSON, r#"{"data":null,"error":"none"}"#, Form::Foreign),
            (302, None, "", Form::Foreign),
            (304, None, "", Form::Node),
        ] {
            assert_eq!(form(status, kind, body, Wanted::Data), expected, "{status} {body}");
        }
        for (status, kind, body, expected) in [
            (200, PAGE, "", Form::Node),
            (404, JSON, "", Form::Node),
            (404, PAGE, "", Form::Foreign),
            (200, PAGE, "<html>", Form::Foreign),
            (404, TEXT, "no", Form::Foreign),
        ] {
            assert_eq!(form(status, kind, body, Wanted::Status), expected, "{status} {body}");
        }
    }

    #[test]
    fn errors_inside_a_success_are_known() {
        let (well, error, null) = ((false, false), (true, false), (false, true));
        for (text, (is_error, is_null)) in [
            (r#"{"execution_optimistic":false,"data":[],"message":"x"}"#, well),
            (" 7 ", well),
            (r#"{"code":503,"message":"syncing"}"#, error),
            (r#"{"code":"503"}"#, error),
            (r#"{"statusCode":502}"#, error),
            (r#"{"status":"error"}"#, error),
            (r#"{"error":{"code":-32000,"message":"upstream timeout"}}"#, error),
            (r#"{"message":"no Route matched with those values"}"#, error),
            (r#"{"code":200,"message":"some","failures":[{"index":0,"message":"bad"}]}"#, error),
            (r#"{"data":null}"#, null),
            (r#"{"data":null,"error":"none"}"#, (true, true)),
        ] {
            let signs = Signs::read(text.as_bytes()).unwrap();
            assert_eq!((signs.is_error, signs.is_null), (is_error, is_null), "{text}");
        }
        for text in ["", "Service Unavailable", r#"{"data":"#, "{]"] {
            assert_eq!(Signs::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_error_is_known_by_its_beginning() {
        for text in
            ["{\"code\":500,", " {\n\"code\": \"503\"", "{\"error\":{", "{\"status\":\"error\"", "{\"success\":false"]
        {
            assert!(begins_as_an_error(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "{",
            "{\"code\":",
            "{\"code\":200,",
            "{\"data\":",
            "{\"error\":null",
            "{\"message\":\"ok\"",
            "[{\"code\":500",
        ] {
            assert!(!begins_as_an_error(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_gateway_may_have_passed_a_message_on() {
        for (status, form, passed_on, passes) in [
            (200, Form::Foreign, true, true),
            (404, Form::Foreign, false, true),
            (404, Form::Node, false, false),
            (406, Form::Foreign, false, false),
            (408, Form::Node, true, true),
            (499, Form::Foreign, true, true),
            (500, Form::Node, true, true),
            (501, Form::Node, false, true),
            (503, Form::Node, false, true),
            (503, Form::Foreign, true, true),
            (504, Form::Node, true, true),
            (507, Form::Foreign, true, true),
            (522, Form::Node, true, true),
            (599, Form::Foreign, true, true),
        ] {
            assert_eq!((form.may_have_passed_on(status), form.is_passing(status)), (passed_on, passes), "{status}");
        }
    }
}
