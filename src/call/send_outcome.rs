//! Reads a node's word on a raw transaction that the node was sent.
//!
//! Rule: a node has the transaction if the node says so in any client's words. A refusal is for
//! good only if the reason is the transaction's bytes, since any other reason may hold at this node
//! alone, or for now. A node that is out of quota, full, at fault or not reached is busy, and does
//! not have the transaction. Of a node that gave no answer nothing is known. Example: geth says
//! "already known", Nethermind "AlreadyKnown" and Besu "Known transaction": each has the
//! transaction.

use std::time::Duration;

use super::{answer::Answer, attempt::Sent};

/// A node's word on a raw transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The node took the transaction.
    Took,
    /// The node has the transaction already, waiting or in a block.
    AlreadyKnown,
    /// The node judged the transaction, and refused.
    Refused {
        /// The code of the node's error; an HTTP status where the node gave no JSON-RPC error.
        code: i64,
        /// The message of the node's error, without secrets.
        message: String,
        /// The reason is the transaction's bytes, so no node would take them, now or later. "nonce
        /// too low" is not for good: a reorganisation may take out the block that used the nonce.
        for_good: bool,
    },
    /// The node does not take the transaction now, or could not be reached; the node does not have
    /// the transaction by this send.
    Busy {
        /// How long the node asked to be left alone, if the node said so.
        wait: Option<Duration>,
    },
    /// No answer came: the node may have the transaction.
    Lost,
}

impl SendOutcome {
    /// The word's name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Took => "took",
            Self::AlreadyKnown => "already_known",
            Self::Refused { .. } => "refused",
            Self::Busy { .. } => "busy",
            Self::Lost => "lost",
        }
    }

    /// Reads the outcome of an attempt to send the transaction.
    pub(super) fn of(sent: &mut Sent) -> Self {
        match sent {
            Sent::Answered(_) => Self::Took,
            Sent::OfTheCaller(answer) | Sent::OfNobody(answer) => Self::of_error(answer),
            Sent::OfTheNode(Some(answer), _) | Sent::Lacking(_, answer) => match answer.error() {
                Some(error) if error.is_already_known() => Self::AlreadyKnown,
                _ => Self::Busy { wait: None },
            },
            Sent::Nothing(_) | Sent::Unwanted => Self::Busy { wait: None },
            Sent::Refused(_, wait) => Self::Busy { wait: *wait },
            Sent::Rejected(status) => {
                Self::Refused { code: (*status).into(), message: format!("HTTP status {status}"), for_good: false }
            }
            // A gateway may answer in the place of a node that has the transaction.
            Sent::OfTheNode(None, _) | Sent::Lost(_) | Sent::NoRoom(_) | Sent::TooLong => Self::Lost,
        }
    }

    fn of_error(answer: &mut Answer) -> Self {
        match answer.error() {
            Some(error) if error.is_already_known() => Self::AlreadyKnown,
            Some(error) => Self::Refused {
                code: error.code,
                for_good: error.is_of_the_bytes(),
                message: error.message.into_owned(),
            },
            None => Self::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        memory::Full,
        pool::health::{Fault, Trouble},
    };

    fn error(code: i64, message: &str) -> Answer {
        let text = format!(r#"{{"jsonrpc":"2.0","id":0,"error":{{"code":{code},"message":"{message}"}}}}"#);
        Answer::whole(Bytes::from(text), 21..22)
    }

    fn refused(code: i64, message: &str, for_good: bool) -> SendOutcome {
        SendOutcome::Refused { code, message: message.to_owned(), for_good }
    }

    #[test]
    fn already_known_is_understood_in_any_clients_words() {
        for (code, message) in [
            (-32000, "already known"),
            (-32010, "AlreadyKnown"),
            (-32000, "Known transaction"),
            (-32010, "Transaction with the same hash was already imported."),
            (-32603, "tx already in mempool"),
            (-32003, "transaction already exists in pool"),
        ] {
            assert_eq!(
                SendOutcome::of(&mut Sent::OfTheCaller(error(code, message))),
                SendOutcome::AlreadyKnown,
                "{message}"
            );
            assert_eq!(
                SendOutcome::of(&mut Sent::OfTheNode(Some(error(code, message)), None)),
                SendOutcome::AlreadyKnown
            );
        }
    }

    #[test]
    fn only_a_refusal_of_the_bytes_is_for_good() {
        for (code, message, for_good) in [
            (-32000, "rlp: expected input list for types.LegacyTx", true),
            (-32602, "invalid params", true),
            (-32000, "invalid sender", true),
            (-32000, "nonce too low: next nonce 8, tx nonce 7", false),
            (-32000, "insufficient funds for gas * price + value", false),
            (-32000, "replacement transaction underpriced", false),
            (-32099, "a reason that is not known", false),
        ] {
            let word = SendOutcome::of(&mut Sent::OfNobody(error(code, message)));
            assert_eq!(word, refused(code, message, for_good));
        }
        assert_eq!(SendOutcome::of(&mut Sent::Rejected(403)), refused(403, "HTTP status 403", false));
    }

    #[test]
    fn a_node_without_an_answer_may_have_the_transaction() {
        let trouble = || Some(Trouble { fault: Fault::Silent, text: String::new() });
        for mut sent in [Sent::Lost(trouble()), Sent::OfTheNode(None, trouble()), Sent::NoRoom(Full(1))] {
            assert_eq!(SendOutcome::of(&mut sent), SendOutcome::Lost);
        }
    }

    #[test]
    fn a_node_that_is_full_or_away_is_busy() {
        let wait = Some(Duration::from_secs(7));
        assert_eq!(SendOutcome::of(&mut Sent::Refused(None, wait)), SendOutcome::Busy { wait });
        for mut sent in
            [Sent::Nothing(None), Sent::Unwanted, Sent::OfTheNode(Some(error(-32000, "txpool is full")), None)]
        {
            assert_eq!(SendOutcome::of(&mut sent), SendOutcome::Busy { wait: None });
        }
    }
}
