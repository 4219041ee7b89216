//! A consensus node's words on a signed message that the node did not take: the network has the
//! message already, the node lacks the block that the message refers to, or the message is wrong.
//!
//! Each kind of node has its own words. Lighthouse and Lodestar write the names of errors in their
//! programs, Teku names of reasons, Grandine and Prysm sentences. Nimbus accepts a message that
//! was seen before as if the message were new.
//!
//! Words were read from the sources of: Lighthouse (`attestation_verification`, `publish_blocks`,
//! `publish_attestations`), Lodestar (`attestationError`, `blockError`, `syncCommitteeError`,
//! `executionPayloadEnvelope`), Teku (the reasons of `BlockImportResult`), Nimbus
//! (`gossip_validation`), Prysm (`handlers_pool`) and Grandine (`http_api/src/error.rs`). The rest
//! are words of the same form that these may say.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use aho_corasick::AhoCorasick;
use serde::Deserialize;
use serde_json::Value;

/// The meaning of a node's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishVerdict {
    /// The network has this very message: an earlier publication reached it.
    Known,
    /// A message of this validator for this duty is known. That is this
    /// message, if its bytes went to the network before; otherwise another, perhaps.
    Repeated,
    /// The message refers to a block or a state that the node does not have, or to a slot that the
    /// node's clock has not reached, which speaks of the node.
    Unknown,
    /// The node could not look at the message: the node is full, catches up, or is broken.
    Failed,
    /// The message is wrong: its signature is.
    Wrong,
    /// The message is one of two that exclude each other, so that it could cost the validator its
    /// stake.
    Slashable,
    /// Words that are not known. They may blame the node as well as the message.
    Other,
}

/// Texts are compared without case, and without characters that are neither letters nor digits, so
/// that the name of an error is found in the same way as a sentence.
const REPEATED: [&str; 16] = [
    // Lodestar says so of any vote of the validator in the epoch; Lighthouse of these very bytes,
    // without the prefix.
    "attestationerrorattestationalreadyknown",
    "payloadattestationalreadyknown",
    "synccommitteemessageknown",
    // Lodestar, of any exit, change or slashing of the same validator.
    "erroralreadyexists",
    // Lighthouse, of a block of the same slot.
    "proposerhasalreadybeenseen",
    "alreadyvotedinepoch",
    "aggregatoralreadyknown",
    "attestersalreadyknown",
    "participantsalreadyknown",
    "priorattestationknown",
    "priorsynccommitteemessageknown",
    "repeatproposal",
    "isnotthefirstone",
    "alreadysubmittedanexit",
    "alreadyinitiated",
    "alreadyproposed",
];
const KNOWN: [&str; 16] = [
    "alreadyknown",
    "alreadybeenimported",
    "alreadybeenpublished",
    "alreadybeenreceived",
    "alreadyexists",
    "alreadyseen",
    "alreadyimported",
    "alreadyinpool",
    "alreadyinthepool",
    "alreadyreceived",
    "alreadypublished",
    "duplicateblock",
    "duplicatefullyimported",
    "duplicateimportstatusunknown",
    "publisherrorduplicate",
    "supersetknown",
];
const UNKNOWN: [&str; 37] = [
    // The node's clock is late.
    "futureslot",
    "futureepoch",
    "slotinthefuture",
    "slottoohigh",
    "isfromfuture",
    "fromthefuture",
    // The node lacks a state.
    "missingstate",
    "missingattestationheadstate",
    "prestatemissing",
    "statenotfound",
    "statemissing",
    "couldnotgettargetstate",
    "blockforattestationisnotfound",
    "blocknotyetseen",
    "parentnotyetseen",
    "unknownhead",
    "unknownblock",
    "unknownbeaconblock",
    "unknownorprefinalized",
    "unknownparent",
    "unknownroot",
    "unknowntarget",
    "parentunknown",
    "blockunknown",
    "missingparent",
    "missingblock",
    "blockismissing",
    "parentnotfound",
    "parentblocknotfound",
    "headblocknotfound",
    "blocknotfound",
    "blockrootnotfound",
    "targetstatemissing",
    "notinforkchoice",
    "notinforkchoicestore",
    "reprocess",
    "payloadnotseen",
];

/// The words of a node that failed, and did not judge the message.
const FAILED: [&str; 27] = [
    "notavailable",
    "executionerror",
    "cachefail",
    "queueisfull",
    "queuefull",
    "queuesfull",
    "queuesarefull",
    "queueerror",
    "toobusy",
    "overloaded",
    "internalerror",
    "internalservererror",
    "beaconchainerror",
    "dberror",
    "timedout",
    "timeout",
    "deadlineexceeded",
    "syncing",
    "notsynced",
    "notinsync",
    "optimistic",
    "shuttingdown",
    "unavailable",
    "notready",
    "nopeers",
    "insufficientpeers",
    "notenoughpeers",
];

/// The words of a node that has judged the message for certain.
const WRONG: [&str; 4] =
    ["invalidsignature", "signatureinvalid", "signatureisinvalid", "incorrectattestationsignature"];
/// The same of messages that could cost the validator its stake. These count whatever else is said.
const SLASHABLE: [&str; 4] = ["equivocat", "slashable", "doublevote", "failedbroadcastvalidation"];

/// Texts that stand before the words where these do not speak of the message: they speak of its
/// parent or of a peer, or a negation comes first.
const OF_ANOTHER: [&str; 12] = [
    "parent",
    "parentis",
    "parentblock",
    "parentblockis",
    "ancestor",
    "ancestoris",
    "peer",
    "peeris",
    "not",
    "never",
    "isnt",
    "wasnt",
];
/// Texts that stand directly behind them where the known message is bad.
const BAD: [&str; 3] = ["bad", "asbad", "tobebad"];
/// The same anywhere behind them.
const INVALID: [&str; 2] = ["invalid", "notvalid"];
/// Texts by which the known message may be another than this one.
const OF_TWO: [&str; 6] = ["another", "different", "otherroot", "otherblock", "sameslot", "conflict"];

/// The kinds of words, in the order of [`LISTS`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Repeated,
    Known,
    Slashable,
    Unknown,
    Wrong,
    Failed,
}

const LISTS: [(Kind, &[&str]); 6] = [
    (Kind::Repeated, &REPEATED),
    (Kind::Known, &KNOWN),
    (Kind::Slashable, &SLASHABLE),
    (Kind::Unknown, &UNKNOWN),
    (Kind::Wrong, &WRONG),
    (Kind::Failed, &FAILED),
];

/// Finds all words in one pass over a text. A node may send tens of thousands of texts at once.
static SEARCH: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let words = LISTS.iter().flat_map(|(_, words)| *words);
    AhoCorasick::new(words).expect("a hundred short words fit into an automaton")
});

/// The kind of the word at each place in [`SEARCH`].
static KINDS: LazyLock<Vec<Kind>> =
    LazyLock::new(|| LISTS.iter().flat_map(|(kind, words)| words.iter().map(|_| *kind)).collect());

impl PublishVerdict {
    /// The meaning of `text`.
    pub fn of(text: &str) -> Self {
        let plain: String =
            text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
        // Words count as success only where they speak of the message itself.
        let is_of_the_message = |before: &str, after: &str| {
            !OF_ANOTHER.iter().any(|word| before.ends_with(word))
                && !BAD.iter().any(|word| after.starts_with(word))
                && !INVALID.iter().any(|word| after.contains(word))
        };
        let is_of_two = || OF_TWO.iter().any(|word| plain.contains(word));
        let mut has = [false; LISTS.len()];
        let mut says = [false; LISTS.len()];
        for found in SEARCH.find_overlapping_iter(&plain) {
            let kind = KINDS[found.pattern().as_usize()];
            has[kind as usize] = true;
            says[kind as usize] |= matches!(kind, Kind::Repeated | Kind::Known)
                && is_of_the_message(&plain[..found.start()], &plain[found.end()..]);
        }
        // The words of the second kind have some of the third in them.
        match () {
            () if has[Kind::Slashable as usize] => Self::Slashable,
            () if says[Kind::Repeated as usize] => Self::Repeated,
            () if has[Kind::Repeated as usize] => Self::Other,
            () if says[Kind::Known as usize] && is_of_two() => Self::Repeated,
            () if says[Kind::Known as usize] => Self::Known,
            () if has[Kind::Unknown as usize] => Self::Unknown,
            () if has[Kind::Wrong as usize] => Self::Wrong,
            () if has[Kind::Failed as usize] => Self::Failed,
            () => Self::Other,
        }
    }

    /// Whether the message is on the network. `was_given`: these bytes may have reached the network
    /// before, by another node.
    pub fn is_known(self, was_given: bool) -> bool {
        self == Self::Known || (self == Self::Repeated && was_given)
    }
}

/// A complaint in words, and their meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    text: Arc<str>,
    said: PublishVerdict,
}

impl Complaint {
    /// The longest text that is kept and judged, in bytes: nodes' words are short, and a list has
    /// thousands of them.
    const LONGEST: usize = 2048;

    /// Judges `text`, of which only the beginning is kept if it is long.
    pub fn of(text: &str) -> Self {
        let text = &text[..text.floor_char_boundary(Self::LONGEST)];
        Self { text: text.into(), said: PublishVerdict::of(text) }
    }

    /// The words.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The meaning of the words.
    pub fn said(&self) -> PublishVerdict {
        self.said
    }
}

/// The complaints about some messages of a list, by the messages' places in the list.
pub type Complaints = BTreeMap<u64, Complaint>;

/// An error in the API's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The complaint about all of the messages.
    pub message: Complaint,
    /// The complaints about some messages of a list.
    pub failures: Complaints,
}

impl Problem {
    /// Reads the body of an error; `None` where the body is not in the API's form. A failure
    /// without words has those of the whole. Where the place of a failure is not given, only the
    /// words on the whole count.
    pub fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Told {
            #[serde(default)]
            message: Option<String>,
            #[serde(default)]
            failures: Option<Vec<Failure>>,
        }
        #[derive(Deserialize)]
        struct Failure {
            #[serde(default)]
            index: Value,
            #[serde(default)]
            message: Option<String>,
        }
        let told: Told = serde_json::from_slice(body).ok()?;
        let message = Complaint::of(&told.message.unwrap_or_default());
        let words = |text: Option<String>| match text.filter(|text| !text.is_empty()) {
            Some(text) => Complaint::of(&text),
            None => message.clone(),
        };
        let failures = told.failures.unwrap_or_default().into_iter();
        let failures = failures.map(|failure| Some((place(&failure.index)?, words(failure.message))));
        let failures: Complaints = failures.collect::<Option<_>>().unwrap_or_default();
        (!message.text.is_empty() || !failures.is_empty()).then_some(Self { message, failures })
    }

    /// Writes the error in the API's form.
    pub fn write(&self, status: u16) -> Vec<u8> {
        let failure =
            |(index, complaint): (&u64, &Complaint)| serde_json::json!({ "index": index, "message": complaint.text() });
        let failures: Vec<_> = self.failures.iter().map(failure).collect();
        serde_json::json!({ "code": status, "message": self.message.text(), "failures": failures }).to_string().into()
    }
}

/// A place in a list: a number, or its digits in quotes.
fn place(index: &Value) -> Option<u64> {
    index.as_u64().or_else(|| index.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clients_words_are_understood() {
        for (text, said) in [
            // Lighthouse.
            ("duplicate block", PublishVerdict::Known),
            ("BAD_REQUEST: BlockIsAlreadyKnown(0x12)", PublishVerdict::Known),
            ("DuplicateFullyImported(0x12)", PublishVerdict::Known),
            ("BlockError: RepeatProposal { proposer: 7, slot: Slot(9) }", PublishVerdict::Repeated),
            ("PriorAttestationKnown { validator_index: 7, epoch: Epoch(3) }", PublishVerdict::Repeated),
            ("Verification: AttestationSupersetKnown(0x12)", PublishVerdict::Known),
            ("Verification: AggregatorAlreadyKnown(7)", PublishVerdict::Repeated),
            ("Verification: SyncContributionAlreadyKnown(0x12)", PublishVerdict::Known),
            ("Validation(UnknownHeadBlock { beacon_block_root: 0x12 })", PublishVerdict::Unknown),
            ("ReprocessTimeout", PublishVerdict::Unknown),
            ("ParentUnknown { parent_root: 0x12 }", PublishVerdict::Unknown),
            ("Validation(InvalidSignature)", PublishVerdict::Wrong),
            ("Verification: AttestationAlreadyKnown(0x12)", PublishVerdict::Known),
            ("FutureSlot { attestation_slot: Slot(5), latest_permissible_slot: Slot(4) }", PublishVerdict::Unknown),
            ("FutureEpoch { attestation_epoch: Epoch(5), current_epoch: Epoch(4) }", PublishVerdict::Unknown),
            ("proposal for this slot and proposer has already been seen", PublishVerdict::Repeated),
            ("PastSlot { attestation_slot: Slot(5), earliest_permissible_slot: Slot(9) }", PublishVerdict::Other),
            // Lodestar.
            ("ATTESTATION_ERROR_FUTURE_SLOT", PublishVerdict::Unknown),
            ("BLOCK_ERROR_FUTURE_SLOT", PublishVerdict::Unknown),
            ("ATTESTATION_ERROR_MISSING_STATE_TO_VERIFY_ATTESTATION", PublishVerdict::Unknown),
            ("ATTESTATION_ERROR_MISSING_ATTESTATION_HEAD_STATE", PublishVerdict::Unknown),
            ("ATTESTATION_ERROR_TARGET_STATE_MISSING", PublishVerdict::Unknown),
            ("BLOCK_ERROR_PRESTATE_MISSING", PublishVerdict::Unknown),
            ("BLOCK_ERROR_EXECUTION_ERROR", PublishVerdict::Failed),
            ("BLOCK_ERROR_PROPOSAL_SIGNATURE_INVALID", PublishVerdict::Wrong),
            ("ATTESTATION_ERROR_PRIOR_ATTESTATION_KNOWN", PublishVerdict::Repeated),
            ("SYNC_COMMITTEE_ERROR_SYNC_COMMITTEE_MESSAGE_KNOWN", PublishVerdict::Repeated),
            ("BLOCK_ERROR_ALREADY_KNOWN", PublishVerdict::Known),
            ("BLOCK_ERROR_REPEAT_PROPOSAL", PublishVerdict::Repeated),
            ("PublishError.Duplicate", PublishVerdict::Known),
            ("ATTESTATION_ERROR_ATTESTATION_ALREADY_KNOWN", PublishVerdict::Repeated),
            ("SYNC_COMMITTEE_ERROR_SYNC_COMMITTEE_AGGREGATOR_ALREADY_KNOWN", PublishVerdict::Repeated),
            ("VOLUNTARY_EXIT_ERROR_ALREADY_EXISTS", PublishVerdict::Repeated),
            ("BLS_TO_EXECUTION_CHANGE_ERROR_ALREADY_EXISTS", PublishVerdict::Repeated),
            ("PROPOSER_SLASHING_ERROR_ALREADY_EXISTS", PublishVerdict::Repeated),
            ("ATTESTATION_ERROR_UNKNOWN_OR_PREFINALIZED_BEACON_BLOCK_ROOT", PublishVerdict::Unknown),
            ("BLOCK_ERROR_PARENT_UNKNOWN", PublishVerdict::Unknown),
            // Nimbus.
            ("Attempt to send attestation for unknown target", PublishVerdict::Unknown),
            ("AttestationData: block not found", PublishVerdict::Unknown),
            ("BeaconBlock: slot too high", PublishVerdict::Unknown),
            ("Aggregate: invalid signature", PublishVerdict::Wrong),
            // Teku.
            ("Exit is not the first one for validator 7.", PublishVerdict::Repeated),
            ("UNKNOWN_PARENT", PublishVerdict::Unknown),
            ("BLOCK_IS_FROM_FUTURE", PublishVerdict::Unknown),
            ("FAILED_DATA_AVAILABILITY_CHECK_NOT_AVAILABLE", PublishVerdict::Failed),
            ("FAILED_BROADCAST_VALIDATION", PublishVerdict::Slashable),
            ("ProposalSlashable: block root not found in cache", PublishVerdict::Slashable),
            // Prysm.
            ("Failed to handle attestations: could not get target state for attestation", PublishVerdict::Unknown),
            ("Incorrect attestation signature: bad point", PublishVerdict::Wrong),
            (
                "validator has already submitted an exit, which will take place at epoch: 28012",
                PublishVerdict::Repeated,
            ),
            // Grandine.
            ("matching head block for attestation is not found", PublishVerdict::Unknown),
            ("target state not found", PublishVerdict::Unknown),
            ("Beacon node is currently syncing", PublishVerdict::Failed),
            // Of the node.
            ("the processor's queue is full", PublishVerdict::Failed),
            ("QUEUE_ERROR_QUEUE_MAX_LENGTH", PublishVerdict::Failed),
            ("BeaconChainError(DBError(..))", PublishVerdict::Failed),
            ("Internal error: task failed", PublishVerdict::Failed),
            ("context deadline exceeded", PublishVerdict::Failed),
            ("", PublishVerdict::Other),
            // The known message is another one, or bad.
            ("BlockError: ParentAlreadyKnownInvalid", PublishVerdict::Other),
            ("Invalid block: parent already known to be invalid", PublishVerdict::Other),
            ("block is already known as invalid", PublishVerdict::Other),
            ("failed to publish: context deadline exceeded; peer already seen", PublishVerdict::Failed),
            ("the exit was not already seen", PublishVerdict::Other),
            ("the parent is already imported, the block is already known", PublishVerdict::Known),
        ] {
            assert_eq!(PublishVerdict::of(text), said, "{text}");
        }
    }

    #[test]
    fn words_of_two_kinds_in_one_text_are_no_success() {
        for (text, said) in [
            ("Slashable: another block of this proposer and slot was already seen", PublishVerdict::Slashable),
            ("equivocating block: a block is already known for this slot", PublishVerdict::Slashable),
            ("block equivocation: duplicate block of proposer", PublishVerdict::Slashable),
            ("double vote: prior attestation known", PublishVerdict::Slashable),
            ("a different block already received for slot", PublishVerdict::Repeated),
            ("another block is already known for this slot", PublishVerdict::Repeated),
            ("block already exists in DB with a different root", PublishVerdict::Repeated),
            ("a block with an other root is already known", PublishVerdict::Repeated),
            ("block conflicts with one that is already known", PublishVerdict::Repeated),
            ("credentials already changed: another change already in the pool", PublishVerdict::Repeated),
            ("Sidecar already known, but block is invalid", PublishVerdict::Other),
            ("already seen; the signature is not valid", PublishVerdict::Other),
            ("a block with the same slot already exists", PublishVerdict::Repeated),
            ("block has already been imported", PublishVerdict::Known),
            ("block had already been received", PublishVerdict::Known),
            ("attestation was already seen", PublishVerdict::Known),
            ("duplicate block", PublishVerdict::Known),
        ] {
            assert_eq!(PublishVerdict::of(text), said, "{text}");
        }
    }

    #[test]
    fn long_words_are_cut_and_shared() {
        let long = "\u{e9}".repeat(3000) + "already known";
        let complaint = Complaint::of(&long);
        assert_eq!((complaint.text().len(), complaint.said()), (2048, PublishVerdict::Other));
        let failures: Vec<_> = (0..3).map(|index| serde_json::json!({ "index": index })).collect();
        let body = serde_json::json!({ "message": long, "failures": failures }).to_string();
        let problem = Problem::read(body.as_bytes()).unwrap();
        assert!(problem.failures.values().all(|complaint| Arc::ptr_eq(&complaint.text, &problem.message.text)));
    }

    #[test]
    fn a_list_of_failures_is_read_and_written() {
        let body = br#"{"code":400,"message":"some","failures":[{"index":3,"message":"a"},{"index":"0"}],"x":1}"#;
        let problem = Problem::read(body).unwrap();
        let failures = BTreeMap::from([(0, Complaint::of("some")), (3, Complaint::of("a"))]);
        assert_eq!(problem, Problem { message: Complaint::of("some"), failures });
        assert_eq!(Problem::read(&problem.write(400)), Some(problem));
        for (failures, left) in [
            (r#"[{"message":"a"}]"#, &[][..]),
            (r#"[{"index":-1,"message":"a"},{"index":1,"message":"b"}]"#, &[]),
            (r#"[{"index":null,"message":null}]"#, &[]),
            (r#"[{"index":1,"message":null},{"index":2,"message":""}]"#, &[(1, "oops"), (2, "oops")]),
            ("null", &[]),
        ] {
            let problem = Problem::read(format!(r#"{{"message":"oops","failures":{failures}}}"#).as_bytes()).unwrap();
            let left: BTreeMap<_, _> = left.iter().map(|(at, text)| (*at, Complaint::of(text))).collect();
            assert_eq!((problem.message.text(), problem.failures), ("oops", left), "{failures}");
        }
        let plain = br#"{"code":500,"message":"oops"}"#;
        assert_eq!(Problem::read(plain).unwrap().message.text(), "oops");
        for body in [&b"<html>"[..], b"", b"[]", b"\"first\"", b"{}", br#"{"failures":[{"index":-1}]}"#] {
            assert_eq!(Problem::read(body), None, "{body:?}");
        }
    }
}
