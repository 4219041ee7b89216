//! Whether an answer of the beacon API is the word of a node.
//!
//! Rule: an answer counts as a node's word only in the API's form, whatever its status. An error of
//! the API is JSON with a code and a message. A success of a message has no body, or one of the few
//! that nodes send; an answer to a question has `data`, where the API says so. Any other answer
//! comes from a gateway, or cannot be told from one, and another node is asked. Reason: gateways
//! answer in the place of nodes with every status, and a gateway's page says nothing of the
//! request. Example: an ingress without a backend answers a vote with 404 and a page. The vote goes
//! to another node, as after a lost connection; a 404 in the API's form would have said that the
//! node lacks the route.

use std::borrow::Cow;

use super::json::{self, Scanner};

/// A longer text is judged by its beginning: a long one has some content.
const JUDGED_WHOLE: usize = 256 * 1024;

/// The content that a success must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The status alone: it is the whole answer.
    Status,
    /// The success of a message.
    Success,
    /// Content of any form: the route is not known.
    Content,
    /// The data asked for: in JSON, an object with `data`.
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
            (..300, Wanted::Content | Wanted::Data) => reply.content(wanted == Wanted::Data),
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

    /// The form of an answer to a question. `in_data`: JSON has its content in `data`.
    fn content(&self, in_data: bool) -> Form {
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
                Some(signs) if signs.is_null || (in_data && !signs.has_data) => Form::Empty,
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
    /// The text, or its data, is null.
    is_null: bool,
    /// The text is an object with `data`.
    has_data: bool,
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
        let text = std::str::from_utf8(text.trim_ascii()).ok()?;
        if !text.starts_with('{') {
            let is_null = text == "null";
            return json::is_whole(text.as_bytes()).then(|| Self {
                is_null,
                is_success: is_null || text == "[]",
                ..Self::default()
            });
        }
        let fields = members(text)?;
        // Of two members of one name the last counts.
        let field = |name: &str| Some(fields.iter().rfind(|(key, _)| key == name)?.1);
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
            has_data: data.is_some(),
            is_success: !is_error && (fields.is_empty() || data.is_some() || is_taken),
            is_problem: is_text("message")
                && (has_code
                    || number("statusCode").is_some()
                    || field("failures").is_some_and(|is| is.starts_with('['))),
        })
    }
}

/// The members of an object, each with its name and its value as written. `None` where the text is
/// no object in JSON, or not whole.
fn members(text: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let (mut scanner, mut members) = (Scanner::of_answer(text.as_bytes()), Vec::new());
    if !scanner.take(b'{') {
        return None;
    }
    while let Some(name) = scanner.member(members.is_empty()).ok()? {
        let start = scanner.offset();
        scanner.value().ok()?;
        members.push((name.decode().unwrap_or_default(), &text[start..scanner.offset()]));
    }
    scanner.end().ok()?;
    Some(members)
}

#[cfg(test)]
mod tests;
