//! Lists of signed messages, of which a node may take some and refuse others.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use super::publishing::{ATTESTATIONS, well};
use crate::common::{
    proxy::Proxy,
    rest::{Exchange, Node, json, nodes, over, request, response, send, until_verdict},
};

fn failures(list: &[(u64, &str)]) -> String {
    let list: Vec<_> = list.iter().map(|(at, text)| serde_json::json!({ "index": at, "message": text })).collect();
    serde_json::json!({ "code": 400, "message": "some failed", "failures": list }).to_string()
}

#[tokio::test]
async fn of_a_list_only_what_no_node_took_has_failed() {
    let unknown = "Validation(UnknownHeadBlock { beacon_block_root: 0x12 })";
    let known = "Verification: AttestationAlreadyKnown(0x12)";
    let (wrong, lost) = ("Validation(InvalidSignature)", "ReprocessTimeout");
    for (first, second, left) in [
        (&[(0, unknown)][..], &[][..], &[][..]),
        (&[(0, unknown), (1, known)], &[(1, known)], &[]),
        (&[(0, known), (1, known)], &[(7, wrong)], &[]),
        (&[(0, unknown), (1, known), (2, wrong)], &[(2, wrong)], &[(2, wrong)]),
        (&[(0, unknown), (1, lost)], &[(1, lost)], &[(1, lost)]),
        // Each takes what the other does not.
        (&[(0, unknown)], &[(1, unknown)], &[]),
        (&[(0, wrong)], &[], &[(0, wrong)]),
    ] {
        let node = |list: &[(u64, &str)]| match list {
            [] => Node::always(json("200 OK", "")),
            list => Node::always(json("400 Bad Request", &failures(list))),
        };
        let (a, b) = (node(first).await, node(second).await);
        let proxy = over(&[&a, &b], "").await;
        let answer = send(&proxy, request("POST", ATTESTATIONS, "", "[]")).await;
        if left.is_empty() {
            assert_eq!((answer.status, &*answer.text()), (200, ""), "{first:?} {second:?}");
            continue;
        }
        assert_eq!(answer.status, 400, "{first:?} {second:?}");
        let expected: serde_json::Value = serde_json::from_str(&failures(left)).unwrap();
        assert_eq!(answer.json()["failures"], expected["failures"], "{first:?} {second:?}");
    }
}

#[tokio::test]
async fn of_a_list_another_node_has_what_the_first_could_not_place() {
    let (unknown, wrong) = ("UnknownHeadBlock", "equivocation");
    for (first, second, left) in [
        // The second takes all that it is given.
        (&[(0, unknown), (2, wrong)][..], None, &[(2, wrong)][..]),
        (&[(0, unknown), (3, unknown)], None, &[]),
        // Its places are those of what it was given.
        (&[(1, unknown), (2, wrong), (3, unknown)], Some(failures(&[(1, wrong)])), &[(2, wrong), (3, wrong)]),
        (&[(1, unknown), (2, wrong), (3, unknown)], Some(failures(&[(0, unknown)])), &[(1, unknown), (2, wrong)]),
        (
            &[(2, wrong), (3, unknown)],
            Some(failures(&[(0, "PriorAttestationKnown")])),
            &[(2, wrong), (3, "PriorAttestationKnown")],
        ),
        // It speaks of all that it was given.
        (&[(2, wrong), (3, unknown)], Some(r#"{"code":400,"message":"duplicate block"}"#.to_owned()), &[(2, wrong)]),
        (&[(2, wrong), (3, unknown)], Some(r#"{"code":400,"message":"no"}"#.to_owned()), &[(2, wrong), (3, unknown)]),
    ] {
        let a = Node::always(json("400 Bad Request", &failures(first))).await;
        let b = match &second {
            None => well().await,
            Some(error) => Node::always(json("400 Bad Request", error)).await,
        };
        let proxy = over(&[&a, &b], "").await;
        let answer = send(&proxy, request("POST", ATTESTATIONS, "", r#"["a", "b", "c" , "d"]"#)).await;
        let case = format!("{first:?} {second:?}: {}", answer.text());
        let given = first.iter().filter(|(_, text)| *text == unknown);
        let given: Vec<_> = given.map(|(at, _)| format!("\"{}\"", char::from(b'a' + *at as u8))).collect();
        assert_eq!(String::from_utf8_lossy(&b.asked()[0].body), format!("[{}]", given.join(",")), "{case}");
        if left.is_empty() {
            assert_eq!(answer.status, 200, "{case}");
            continue;
        }
        assert_eq!(answer.status, 400, "{case}");
        let expected: serde_json::Value = serde_json::from_str(&failures(left)).unwrap();
        assert_eq!(answer.json()["failures"], expected["failures"], "{case}");
    }
}

#[tokio::test]
async fn a_node_that_fails_over_a_list_has_taken_none_of_it() {
    let lists = [(0, "Validation(InvalidSignature)"), (1, "Validation(InvalidSignature)")];
    for status in ["503 Service Unavailable", "500 Internal Server Error"] {
        let fails = Node::always(json(status, &failures(&lists[..1]))).await;
        let refuses = Node::always(json("400 Bad Request", &failures(&lists[1..]))).await;
        let proxy = over(&[&fails, &refuses], "").await;
        let answer = send(&proxy, request("POST", ATTESTATIONS, "", "[]")).await;
        assert_eq!((answer.status, refuses.asked().len()), (400, 1), "{status}");
    }
}

#[tokio::test]
async fn unexamined_list_items_go_to_another_node() {
    let (full, wrong, known) =
        ("the processor's queue is full", "Validation(InvalidSignature)", "PriorAttestationKnown");
    for (first, given, second, left) in [
        (&[(0, full), (1, "internal error")][..], r#"["a","b"]"#, &[][..], &[][..]),
        (&[(1, "UnknownHeadBlock"), (2, full)], r#"["b","c"]"#, &[], &[]),
        (&[(1, wrong), (2, full)], r#"["c"]"#, &[], &[(1, wrong)]),
        (&[(1, full), (2, full)], r#"["b","c"]"#, &[(1, wrong)], &[(2, wrong)]),
        (&[(1, full), (2, full)], r#"["b","c"]"#, &[(1, known)], &[(2, known)]),
    ] {
        let a = Node::always(json("400 Bad Request", &failures(first))).await;
        let b = match second {
            [] => well().await,
            list => Node::always(json("400 Bad Request", &failures(list))).await,
        };
        let proxy = over(&[&a, &b], "").await;
        let answer = send(&proxy, request("POST", ATTESTATIONS, "", r#"["a", "b", "c", "d"]"#)).await;
        let case = format!("{first:?} {second:?}: {}", answer.text());
        assert_eq!((String::from_utf8_lossy(&b.asked()[0].body), b.count()), (given.into(), 1), "{case}");
        assert_eq!((answer.status, a.count()), (if left.is_empty() { 200 } else { 400 }, 1), "{case}");
        if !left.is_empty() {
            let expected: serde_json::Value = serde_json::from_str(&failures(left)).unwrap();
            assert_eq!(answer.json()["failures"], expected["failures"], "{case}");
        }
    }
}

#[tokio::test]
async fn a_message_no_node_read_is_given_again_in_its_time() {
    let turn = Arc::new(AtomicUsize::new(0));
    let first = Node::paced(1, move |exchange: Exchange| {
        let full = |at| json("400 Bad", &failures(&[(at, "queue is full")]));
        // By the places of what it was given.
        exchange.reply(match turn.fetch_add(1, SeqCst) {
            0 => full(1),
            1 => full(0),
            _ => json("200 OK", ""),
        })
    })
    .await;
    let syncs = json("400 Bad", r#"{"code":400,"message":"Beacon node is currently syncing"}"#);
    let second = Node::always(syncs).await;
    second.set_pace(1);
    let proxy = over(&[&first, &second], "").await;
    let answer = send(&proxy, request("POST", ATTESTATIONS, "", r#"["a","b"]"#)).await;
    assert_eq!((answer.status, &*answer.text()), (200, ""));
    let bodies: Vec<_> = first.asked().into_iter().map(|asked| String::from_utf8(asked.body).unwrap()).collect();
    assert_eq!(bodies, [r#"["a","b"]"#, r#"["b"]"#, r#"["b"]"#]);
    // In the end the client hears of it.
    let node = Node::always(json("400 Bad", &failures(&[(0, "queue is full")]))).await;
    let proxy = over(&[&node], "[calls]\nhold = \"1s\"\n").await;
    let answer = send(&proxy, request("POST", ATTESTATIONS, "", r#"["a","b"]"#)).await;
    assert_eq!((answer.status, &answer.json()["failures"][0]["message"]), (400, &"queue is full".into()));
    assert!(node.count() > 1);
}

#[tokio::test]
async fn a_list_that_is_not_taken_apart_goes_on_whole() {
    let long = format!(r#"["{}","b","c"]"#, "a".repeat(1 << 20));
    for (kind, body) in [("octet-stream", vec![7; 300]), ("json", long.into_bytes())] {
        // Nodes know by then what the first has taken.
        let first = failures(&[(0, "UnknownHeadBlock")]);
        let second = failures(&[(1, "PriorAttestationKnown"), (2, "ATTESTATION_ALREADY_KNOWN")]);
        let (a, b) = (Node::always(json("400 Bad", &first)).await, Node::always(json("400 Bad", &second)).await);
        let proxy = over(&[&a, &b], "").await;
        let kind = format!("content-type: application/{kind}\r\n");
        let answer = send(&proxy, request("POST", ATTESTATIONS, &kind, &body)).await;
        assert_eq!((answer.status, &*answer.text()), (200, ""), "{kind}");
        assert!(b.asked()[0].body == body, "{kind}");
    }
}

/// A proxy before these nodes, which has a secret to keep for each.
async fn with_secrets(list: &[&Node]) -> Proxy {
    let node = |node: &&Node| nodes(&[node.url()]) + "headers = { X-Api-Key = \"s3cret-of-the-node\" }\n";
    let list = list.iter().enumerate().map(|(at, one)| node(one).replace("cl-1", &format!("cl-{}", at + 1)));
    let proxy = Proxy::launch(&list.collect::<String>()).await;
    until_verdict(&proxy, "cl-1", "up").await;
    until_verdict(&proxy, "cl-2", "up").await;
    proxy
}

#[tokio::test]
async fn a_thousand_failures_are_read() {
    let unknown = "Validation(UnknownHeadBlock { beacon_block_root: 0x1234 })";
    let list: Vec<_> =
        (0..1000).map(|at| (at, if at == 7 { "Validation(InvalidSignature)" } else { unknown })).collect();
    let error = failures(&list);
    assert!(error.len() > 64 * 1024);
    for has_secrets in [false, true] {
        let (a, b) = (Node::always(json("400 Bad", &error)).await, well().await);
        let proxy = if has_secrets { with_secrets(&[&a, &b]).await } else { over(&[&a, &b], "").await };
        let body = serde_json::to_string(&(0..1000).collect::<Vec<_>>()).unwrap();
        let answer = send(&proxy, request("POST", ATTESTATIONS, "", body)).await;
        // The message that is wrong did not go to the other node.
        let failures = answer.json()["failures"].as_array().unwrap().len();
        assert_eq!((answer.status, failures, b.count()), (400, 1, 1), "{has_secrets}");
        let given: Vec<u64> = serde_json::from_slice(&b.asked()[0].body).unwrap();
        assert_eq!(given.len(), 999);
    }
}

#[tokio::test]
async fn words_that_cannot_be_read_are_not_the_last() {
    let long = format!(r#"{{"code":400,"message":"{}"}}"#, "x".repeat(5 << 20));
    let packed = response("400 Bad", "content-type: application/json\r\ncontent-encoding: gzip\r\n", "\x1f\x08");
    let late = b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for (case, error) in [("long", json("400 Bad", &long)), ("packed", packed), ("late", late)] {
        for has_secrets in [false, true] {
            let error = error.clone();
            let a = Node::start(move |mut exchange: Exchange| {
                let error = error.clone();
                async move {
                    exchange.body().await;
                    exchange.send(error).await;
                    exchange.hang().await
                }
            })
            .await;
            let b = well().await;
            let proxy = if has_secrets { with_secrets(&[&a, &b]).await } else { over(&[&a, &b], "").await };
            let answer = send(&proxy, request("POST", ATTESTATIONS, "", "[1]")).await;
            assert_eq!(
                (answer.status, &*answer.text(), b.count()),
                (200, r#"{"data":"well"}"#, 1),
                "{case} {has_secrets}"
            );
        }
    }
    // Where no node takes the message, the client hears them.
    let (a, b) = (Node::always(json("400 Bad", &long)).await, Node::always(json("503 Busy", "{}")).await);
    let proxy = over(&[&a, &b], "[calls]\nhold = \"1s\"\n").await;
    let answer = send(&proxy, request("POST", ATTESTATIONS, "", "[1]")).await;
    assert!(answer.status == 400 && answer.text() == long, "{}", answer.status);
}
