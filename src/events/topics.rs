//! The topics that a client asks for.

use std::collections::BTreeSet;

/// Topics by name, in order.
pub type Names = BTreeSet<String>;

/// The topics about the chain, which the proxy reads itself and so always asks for.
pub const CHAIN: [&str; 4] = ["block", "chain_reorg", "finalized_checkpoint", "head"];

/// All topics of the beacon API, past and present: the labels of metrics. Any other topic counts as
/// `other`, and passes through.
const KNOWN: [&str; 27] = [
    "attestation",
    "attester_slashing",
    "blob_sidecar",
    "block",
    "block_gossip",
    "bls_to_execution_change",
    "chain_reorg",
    "contribution_and_proof",
    "data_column_sidecar",
    "execution_payload",
    "execution_payload_available",
    "execution_payload_bid",
    "execution_payload_gossip",
    "fast_confirmation",
    "finalized_checkpoint",
    "head",
    "head_v2",
    "inclusion_list",
    "light_client_finality_update",
    "light_client_optimistic_update",
    "light_client_optimistic_update_v2",
    "payload_attestation_message",
    "payload_attributes",
    "proposer_preferences",
    "proposer_slashing",
    "single_attestation",
    "voluntary_exit",
];

/// Topics that one client may ask for.
const MAX_TOPICS: usize = 64;
/// Bytes of a topic's name.
const MAX_TOPIC_NAME: usize = 64;

/// The word for a topic in metrics.
pub fn label(topic: &str) -> &'static str {
    KNOWN.iter().find(|known| **known == topic).copied().unwrap_or("other")
}

/// All words for topics in metrics.
pub fn labels() -> impl Iterator<Item = &'static str> {
    KNOWN.into_iter().chain(["other"])
}

/// Reads the topics of a query, `topics=a,b` and `topics=a&topics=b` alike.
///
/// # Errors
/// Says what is wrong, for the client to read.
pub fn parse(query: &str) -> Result<Names, String> {
    let mut names = Names::new();
    for list in query.split('&').filter_map(|pair| pair.strip_prefix("topics=").or(pair.strip_prefix("topics[]="))) {
        // Commas are often written as %2C; no other character of a topic needs that.
        for name in list.replace("%2C", ",").replace("%2c", ",").split(',').filter(|name| !name.is_empty()) {
            // A topic's name goes into the node's URL, so only letters, digits and these marks are
            // let through.
            if name.len() > MAX_TOPIC_NAME || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)) {
                let shown: String = name.chars().take(MAX_TOPIC_NAME).collect();
                return Err(format!("Invalid topic: {shown}"));
            }
            names.insert(name.to_owned());
        }
    }
    match names.len() {
        0 => Err("No topics: name them as in ?topics=head,block".to_owned()),
        count if count > MAX_TOPICS => Err(format!("Too many topics: {MAX_TOPICS} at most")),
        _ => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_as_lists_and_as_repeated_keys() {
        let names = |list: &[&str]| Ok(list.iter().map(|name| (*name).to_owned()).collect::<Names>());
        for (query, expected) in [
            ("topics=head", names(&["head"])),
            ("topics=head,block", names(&["block", "head"])),
            ("topics=head&topics=block", names(&["block", "head"])),
            ("topics=head%2Cblock%2cnew_one&x=y&topics=head", names(&["block", "head", "new_one"])),
            ("topics=,head,", names(&["head"])),
        ] {
            assert_eq!(parse(query), expected, "{query}");
        }
        for query in ["", "topics=", "topic=head", "x=topics=head", "topics=a%20b", "topics=a/b", "topics=a%0d%0a"] {
            assert!(parse(query).is_err(), "{query}");
        }
        let many: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
        assert!(parse(&format!("topics={}", many.join(","))).unwrap_err().contains("Too many"));
        assert!(parse(&format!("topics={}", "x".repeat(65))).is_err());
    }

    #[test]
    fn labels_are_bounded() {
        assert_eq!((label("head"), label("anything")), ("head", "other"));
        assert!(CHAIN.iter().all(|topic| label(topic) == *topic));
        assert!(KNOWN.is_sorted());
    }
}
