//! The answers of nodes to the stitcher's questions, and questions that stay without an answer.

use super::{ATTEMPTS, ChainAnswer, Question, Stitcher, work::Work};

impl Stitcher {
    pub(super) fn learn(&mut self, question: Question, answer: Option<ChainAnswer>) {
        match (question, answer) {
            (Question::Head, Some(ChainAnswer::Header(root, header))) if header.slot <= self.latest => {
                self.chain.insert(root, header);
                let is_look = matches!(self.work.pop_front(), Some(Work::Look));
                let is_reported = |work: &Work| matches!(work, Work::Head(head) if !is_look || head.root == root);
                // At the very start the first head is the one that the stream has reported already;
                // later, and without one, the first is the node's present head.
                let has_own = (self.tip.is_none() || is_look) && self.work.iter().any(is_reported);
                if !has_own {
                    let head = self.late.caught(root, header.slot);
                    self.work.push_front(head.into());
                }
            }
            (Question::Header(asked), Some(ChainAnswer::Header(root, header))) if asked == root => {
                self.chain.insert(root, header);
            }
            (Question::Duties { root, .. }, Some(ChainAnswer::Duties(duties))) => self.chain.learn_duties(root, duties),
            // The path to the head may rest on presumed parents. If not, the stream reports the
            // node's new head.
            (Question::Duties { .. }, Some(ChainAnswer::Left)) if self.chain.refute() => {}
            (Question::Duties { .. }, Some(ChainAnswer::Left)) => _ = self.work.pop_front(),
            (Question::Duties { epoch, .. }, _) => _ = self.unanswered.insert(epoch),
            (Question::Finalized(_), Some(ChainAnswer::Finalized(checkpoint)))
                if self.chain.final_from(checkpoint.epoch) <= self.latest =>
            {
                self.work.pop_front();
                self.work.push_front(Work::MissedFinality(checkpoint));
            }
            (Question::Header(root), _) if self.chain.presume(root) => {}
            _ => self.go_without(),
        }
    }

    /// The question for the first piece of work has no answer.
    fn go_without(&mut self) {
        match self.work.pop_front() {
            Some(Work::Block { slot, root, event: Some(event) }) => self.tell_block(root, slot, event),
            Some(Work::Head(head)) => {
                self.failures += 1;
                if self.failures < ATTEMPTS {
                    self.work.push_front(head.into());
                    self.broken("it does not tell the blocks before its head");
                } else {
                    self.skip(&head);
                }
            }
            Some(Work::Catch) => {
                self.failures += 1;
                // After the last try the stream's own events have to do.
                if self.failures < ATTEMPTS {
                    self.broken("it does not tell its head");
                }
            }
            Some(Work::Finality(_) | Work::MissedFinality(_)) => self.asks_finality = true,
            _ => {}
        }
    }
}
