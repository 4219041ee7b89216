//! `Head::read` on the heads that nodes and gateways send.

use bytes::BytesMut;
use divan::{Bencher, counter::BytesCount};
use steadfast::net::http::head::Head;

/// geth's answer to a small call.
const GETH: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nVary: Origin\r\n\
    Date: Sun, 14 Apr 2024 19:17:35 GMT\r\nContent-Length: 102\r\n\r\n";

/// geth's answer to a long one, which has no length.
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nVary: Origin\r\n\
    Date: Sun, 14 Apr 2024 19:17:35 GMT\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A provider behind a content delivery network.
const GATEWAY: &str = "HTTP/1.1 200 OK\r\nDate: Sun, 14 Apr 2024 19:17:35 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 102\r\nConnection: keep-alive\r\nVary: Origin\r\n\
    Vary: Accept-Encoding\r\nAccess-Control-Allow-Origin: *\r\nX-Request-Id: 5f0c9d3a6a1e4d1b8a7e3c2d1f0e9b8a\r\n\
    X-RateLimit-Limit: 330\r\nX-RateLimit-Remaining: 329\r\nX-RateLimit-Reset: 1\r\nCF-Cache-Status: DYNAMIC\r\n\
    Strict-Transport-Security: max-age=31536000; includeSubDomains\r\nServer: cloudflare\r\n\
    CF-RAY: 8745c2d0ffb2a1b2-FRA\r\nalt-svc: h3=\":443\"; ma=86400\r\n\r\n";

fn main() {
    divan::main();
}

/// A whole head in the buffer.
#[divan::bench(args = [("geth", GETH), ("chunked", CHUNKED), ("gateway", GATEWAY)])]
fn read(bencher: Bencher, (_, head): (&str, &str)) {
    bencher.counter(BytesCount::of_str(head)).with_inputs(|| BytesMut::from(head)).bench_values(|mut buffer| {
        let head = Head::read(&mut buffer, false, &mut 0).expect("a well-formed head");
        head.expect("a whole head").status
    });
}

/// A head that lacks its last byte: the price of asking once too often.
#[divan::bench]
fn read_too_early(bencher: Bencher) {
    let part = &GATEWAY[..GATEWAY.len() - 1];
    bencher.counter(BytesCount::of_str(part)).with_inputs(|| BytesMut::from(part)).bench_values(|mut buffer| {
        Head::read(&mut buffer, false, &mut 0).expect("the beginning of a well-formed head").is_none()
    });
}
