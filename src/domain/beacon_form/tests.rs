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
    for (kind, begin, is_node) in [(JSON, "{\"code\"", true), (JSON, "", true), (JSON, " <h", false), (None, "", false)]
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
        (200, None, r#"{"data":{}}"#, Form::Node),
        (200, JSON, "[]", Form::Empty),
        (200, JSON, "{}", Form::Empty),
        (200, None, "{}", Form::Empty),
        (200, JSON, r#"{"foo":1}"#, Form::Empty),
        (200, JSON, r#"{"jsonrpc":"2.0","id":1,"result":{"data":[]}}"#, Form::Empty),
        (200, JSON, "\"x\"", Form::Empty),
        (200, JSON, "7", Form::Empty),
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
    for (body, expected) in [
        ("[]", Form::Node),
        ("{}", Form::Node),
        (r#"{"foo":1}"#, Form::Node),
        ("7", Form::Node),
        ("null", Form::Empty),
        (r#"{"data":null}"#, Form::Empty),
        (r#"{"code":503,"message":"syncing"}"#, Form::Foreign),
    ] {
        assert_eq!(form(200, JSON, body, Wanted::Content), expected, "of an unknown route: {body}");
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
