//! A node's error, as a word about the transaction that it was sent.

use super::input::{NodeWords, Word};
use crate::domain::answer::NodeError;

/// Words about the bytes alone, which no fork, no fee and no other transaction can change. The
/// nodes' spellings differ: geth, erigon, Nethermind, Besu and reth are heard.
const FOR_GOOD: [&str; 9] = [
    "intrinsic gas too low",
    "intrinsic gas too high",
    "gas uint64 overflow",
    "invalid sender",
    "invalid signature",
    "invalid chain id",
    "max priority fee per gas higher than max fee per gas",
    "nonce has max value",
    "oversized data",
];

/// Words for a sender whose balance does not pay for the transaction.
const UNFUNDED: [&str; 7] = [
    "insufficient funds",
    "insufficientfunds",
    "insufficient_funds",
    "insufficient balance",
    "exceeds account balance",
    "exceeds transaction sender account balance",
    "exceeds_balance",
];

/// Words for a nonce that a block has used.
const NONCE_USED: [&str; 6] =
    ["nonce too low", "noncetoolow", "nonce_too_low", "oldnonce", "old nonce", "nonce is too low"];

impl Word {
    /// What an error of a node says of the transaction that it was sent.
    ///
    /// A code alone is never taken for a word about the bytes: nodes answer -32602 and -32000 to
    /// much. A type of transaction that a node does not know yet may come with its next version.
    pub fn of_error(error: &NodeError<'_>) -> Self {
        if error.is_already_known() {
            return Self::Taken;
        }
        let message = error.message.to_ascii_lowercase();
        let says = |list: &[&str]| list.iter().any(|words| message.contains(words));
        let words = NodeWords { code: error.code, message: super::reason(&error.message) };
        if is_of_used_nonce(&message) {
            Self::NonceUsed(words)
        } else if says(&FOR_GOOD) {
            Self::RefusedForGood(words)
        } else if says(&UNFUNDED) {
            Self::Unfunded(words)
        } else {
            Self::RefusedNow(words)
        }
    }
}

/// Whether these words of a node, in lower case, speak of a nonce that a block has used.
pub(super) fn is_of_used_nonce(message: &str) -> bool {
    NONCE_USED.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(code: i64, message: &str) -> Word {
        Word::of_error(&NodeError { code, message: message.into(), data: None })
    }

    #[test]
    fn errors_are_read_in_the_words_of_many_clients() {
        for message in ["already known", "AlreadyKnown", "Known transaction", "tx already in mempool"] {
            assert_eq!(word(-32000, message), Word::Taken, "{message}");
        }
        for message in [
            "nonce too low: next nonce 5, tx nonce 4",
            "Nonce too low",
            "OldNonce, Current nonce: 5, nonce of rejected tx: 4",
            "NONCE_TOO_LOW",
        ] {
            assert!(matches!(word(-32000, message), Word::NonceUsed(_)), "{message}");
        }
        for message in [
            "intrinsic gas too low: have 20000, want 21000",
            "invalid sender",
            "invalid chain id for signer: have 5 want 1",
            "max priority fee per gas higher than max fee per gas: address 0x1",
            "oversized data: transaction size 140000, limit 131072",
        ] {
            assert!(matches!(word(-32000, message), Word::RefusedForGood(_)), "{message}");
        }
        for message in [
            "insufficient funds for gas * price + value: address 0x1 have 0 want 1",
            "InsufficientFunds, Account balance: 0, cumulative cost: 21000",
            "transaction up-front cost 0x1 exceeds transaction sender account balance 0x0",
            "Upfront cost exceeds account balance",
            "UPFRONT_COST_EXCEEDS_BALANCE",
        ] {
            assert!(matches!(word(-32000, message), Word::Unfunded(_)), "{message}");
        }
        for (code, message) in [
            (-32000, "replacement transaction underpriced"),
            (-32000, "transaction underpriced"),
            (-32000, "txpool is full"),
            (-32000, "exceeds block gas limit"),
            (-32000, "transaction type not supported"),
            (-32000, "nonce too high"),
            (-32602, "invalid params"),
            (-32000, "unknown transaction type"),
            (-32005, "rate limit"),
        ] {
            assert!(matches!(word(code, message), Word::RefusedNow(_)), "{message}");
        }
    }
}
