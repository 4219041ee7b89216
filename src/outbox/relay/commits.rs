//! The steps of a relay that are on their way to the disk, and what is to follow each.

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesOrdered};

use crate::outbox::{
    desk::{Effect, Waiter},
    record::{Delivery, TxId},
    step::{Step, Write},
    store::{Line, StoreError},
};

/// The most steps on their way; with as many the relay takes nothing new.
const MAX_COMMITS: usize = 1024;

/// What follows a step that is on the disk.
#[derive(Debug, Default)]
pub(super) struct After {
    pub(super) effects: Vec<Effect>,
    /// The deliveries that the step has.
    pub(super) deliveries: Vec<Delivery>,
    /// The transactions whose record the step writes, for other replicas.
    pub(super) changed: Vec<TxId>,
    /// The transactions whose record the step removes, for other replicas.
    pub(super) dropped: Vec<TxId>,
}

impl After {
    /// Those whose answer is among the effects.
    pub(super) fn waiters(&self) -> Vec<Waiter> {
        let of = |effect: &Effect| match effect {
            Effect::Answer { waiter, .. } => Some(*waiter),
            _ => None,
        };
        self.effects.iter().filter_map(of).collect()
    }
}

/// Steps in their order.
pub(super) struct Commits {
    steps: FuturesOrdered<BoxFuture<'static, (Result<(), StoreError>, After)>>,
    /// Whether other replicas are told of each step.
    is_shared: bool,
}

impl Commits {
    pub(super) fn new(is_shared: bool) -> Self {
        Self { steps: FuturesOrdered::new(), is_shared }
    }

    /// Hands a step in. What follows the step comes back at once where nothing is waited for.
    pub(super) async fn add(&mut self, line: &Line, step: Step, effects: Vec<Effect>) -> Option<After> {
        let mut after = After { effects, deliveries: deliveries(&step), ..After::default() };
        if self.is_shared {
            (after.changed, after.dropped) = (changed(&step), dropped(&step));
        }
        if step.is_empty() {
            if self.steps.is_empty() {
                return Some(after);
            }
            // The effects rest on the steps before.
            self.steps.push_back(async move { (Ok(()), after) }.boxed());
            return None;
        }
        // The order of the steps is that in which they are handed in here.
        let handed_in = line.submit(step).await;
        self.steps.push_back(
            async move {
                let outcome = match handed_in {
                    Ok(pending) => pending.await,
                    Err(error) => Err(error),
                };
                (outcome, after)
            }
            .boxed(),
        );
        None
    }

    /// The outcome of the next step. `None` where there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<(Result<(), StoreError>, After)> {
        self.steps.next().await
    }

    /// Waits for all steps behind one that failed with `error`. Returns the consequences of that
    /// step, `failed`, and of the others, in their order and each with its error.
    pub(super) async fn give_up(&mut self, error: StoreError, failed: After) -> Vec<(StoreError, After)> {
        let mut undone = vec![(error.clone(), failed)];
        while let Some((outcome, after)) = self.next().await {
            // An empty step has no failure of its own: it rests on the steps before.
            undone.push((outcome.err().unwrap_or_else(|| error.clone()), after));
        }
        undone
    }

    /// Waits for all steps. Returns the consequences of those on the disk, and of the others.
    pub(super) async fn settle(&mut self) -> (Vec<After>, Vec<(StoreError, After)>) {
        let mut done = Vec::new();
        while let Some((outcome, after)) = self.next().await {
            if let Err(error) = outcome {
                return (done, self.give_up(error, after).await);
            }
            done.push(after);
        }
        (done, Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.steps.len() < MAX_COMMITS
    }
}

/// The transactions whose record a step writes.
fn changed(step: &Step) -> Vec<TxId> {
    let of = |write: &Write| match write {
        Write::Record(record) => Some(record.id.clone()),
        _ => None,
    };
    step.writes().iter().filter_map(of).collect()
}

/// The transactions whose record a step removes.
fn dropped(step: &Step) -> Vec<TxId> {
    let of = |write: &Write| match write {
        Write::Remove(id) => Some(id.clone()),
        _ => None,
    };
    step.writes().iter().filter_map(of).collect()
}

/// The deliveries that a step writes.
fn deliveries(step: &Step) -> Vec<Delivery> {
    let of = |write: &Write| match write {
        Write::Event { deliveries, .. } => deliveries.clone(),
        Write::Delivery(delivery) => vec![(**delivery).clone()],
        _ => Vec::new(),
    };
    step.writes().iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{
        desk::Done,
        record::BlockId,
        store::{Store, pretend_disk::PretendDisk},
    };

    #[tokio::test]
    async fn effects_wait_for_the_steps_before() {
        let line = Store::inline(Box::new(PretendDisk::new())).unwrap().line();
        let mut commits = Commits::new(false);
        let effects = |waiter| vec![Effect::Answer { waiter, answer: Ok(Done::Command) }];
        let block = BlockId { number: 1, hash: alloy_primitives::B256::ZERO };
        let step = Step::new().checkpoint("main".into(), block).take();
        assert!(commits.add(&line, step, effects(1)).await.is_none());
        assert!(commits.add(&line, Step::new(), effects(2)).await.is_none(), "it rests on the first");
        for waiter in [1, 2] {
            let (outcome, after) = commits.next().await.unwrap();
            assert_eq!((outcome, after.waiters()), (Ok(()), vec![waiter]));
        }
        assert!(commits.add(&line, Step::new(), effects(3)).await.is_some());
    }
}
