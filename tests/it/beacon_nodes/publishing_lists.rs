//! Lists of signed messages, of which a node may take some and refuse others.

use super::publishing::{ATTESTATIONS, well};
use crate::common::rest::{Node, json, over, request, send};

fn failures(list: &[(u64, &str)]) -> String {
    let list: Vec<_> = list.iter().map(|(at, text)| serde_json::json!({ "index": at, "message": text })).collect();
    serde_json::json!({ "code": 400, "message": "some failed", "failures": list }).to_string()
}

#[tokio::test]
async fn of_a_list_only_what_no_node_took_has_failed() {
    let unknown = "Validation(UnknownHeadBlock { beacon_block_root: 0x12 })";
    let known = "ATTESTATION_ERROR_ATTESTATION_ALREADY_KNOWN";
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
