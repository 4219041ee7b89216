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

use std::collections::BTreeMap;

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
const REPEATED: [&str; 15] = [
    // Lodestar says so of any vote of the validator in the epoch; Lighthouse of these very bytes,
    // without the prefix.
    "attestationerrorattestationalreadyknown",
    "payloadattestationalreadyknown",
    "synccommitteemessageknown",
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
const KNOWN: [&str; 13] = [
    "alreadyknown",
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
/// Texts that stand behind them where the known message is bad.
const BAD: [&str; 8] = ["invalid", "asinvalid", "tobeinvalid", "andinvalid", "butinvalid", "bad", "asbad", "tobebad"];

impl PublishVerdict {
    /// The meaning of `text`.
    pub fn of(text: &str) -> Self {
        let plain: String =
            text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
        let has = |words: &[&str]| words.iter().any(|word| plain.contains(word));
        let is_of_the_message = |(at, word): (usize, &str)| {
            let (before, after) = (&plain[..at], &plain[at + word.len()..]);
            !OF_ANOTHER.iter().any(|word| before.ends_with(word)) && !BAD.iter().any(|word| after.starts_with(word))
        };
        // Words count as success only where they speak of the message itself.
        let says = |words: &[&str]| words.iter().any(|word| plain.match_indices(word).any(is_of_the_message));
        // The words of the first kind have some of the second in them.
        match () {
            () if says(&REPEATED) => Self::Repeated,
            () if has(&REPEATED) => Self::Other,
            () if says(&KNOWN) => Self::Known,
            () if has(&SLASHABLE) => Self::Slashable,
            () if has(&UNKNOWN) => Self::Unknown,
            () if has(&WRONG) => Self::Wrong,
            () if has(&FAILED) => Self::Failed,
            () => Self::Other,
        }
    }

    /// Whether the message is on the network. `was_given`: these bytes may have reached the network
    /// before, by another node.
    pub fn is_known(self, was_given: bool) -> bool {
        self == Self::Known || (self == Self::Repeated && was_given)
    }
}

/// An error in the API's form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// The complaint about all of the messages, in words.
    pub message: String,
    /// The complaints about some messages of a list, by the messages' places in the list.
    pub failures: BTreeMap<u64, String>,
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
        let message = told.message.unwrap_or_default();
        let words = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| message.clone());
        let failures = told.failures.unwrap_or_default().into_iter();
        let failures = failures.map(|failure| Some((place(&failure.index)?, words(failure.message))));
        let failures: BTreeMap<u64, String> = failures.collect::<Option<_>>().unwrap_or_default();
        (!message.is_empty() || !failures.is_empty()).then_some(Self { message, failures })
    }

    /// Writes the error in the API's form.
    pub fn write(&self, status: u16) -> Vec<u8> {
        let failure = |(index, message): (&u64, &String)| serde_json::json!({ "index": index, "message": message });
        let failures: Vec<_> = self.failures.iter().map(failure).collect();
        serde_json::json!({ "code": status, "message": self.message, "failures": failures }).to_string().into()
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
            ("VOLUNTARY_EXIT_ERROR_ALREADY_EXISTS", PublishVerdict::Known),
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
    fn a_list_of_failures_is_read_and_written() {
        let body = br#"{"code":400,"message":"some","failures":[{"index":3,"message":"a"},{"index":"0"}],"x":1}"#;
        let problem = Problem::read(body).unwrap();
        let failures = BTreeMap::from([(0, "some".to_owned()), (3, "a".to_owned())]);
        assert_eq!(problem, Problem { message: "some".to_owned(), failures });
        assert_eq!(Problem::read(&problem.write(400)), Some(problem));
        for (failures, left) in [
            (r#"[{"message":"a"}]"#, &[][..]),
            (r#"[{"index":-1,"message":"a"},{"index":1,"message":"b"}]"#, &[]),
            (r#"[{"index":null,"message":null}]"#, &[]),
            (r#"[{"index":1,"message":null},{"index":2,"message":""}]"#, &[(1, "oops"), (2, "oops")]),
            ("null", &[]),
        ] {
            let problem = Problem::read(format!(r#"{{"message":"oops","failures":{failures}}}"#).as_bytes()).unwrap();
            let left: BTreeMap<_, _> = left.iter().map(|(at, text)| (*at, (*text).to_owned())).collect();
            assert_eq!((&*problem.message, problem.failures), ("oops", left), "{failures}");
        }
        let plain = br#"{"code":500,"message":"oops"}"#;
        assert_eq!(Problem::read(plain).unwrap().message, "oops");
        for body in [&b"<html>"[..], b"", b"[]", b"\"first\"", b"{}", br#"{"failures":[{"index":-1}]}"#] {
            assert_eq!(Problem::read(body), None, "{body:?}");
        }
    }
}
