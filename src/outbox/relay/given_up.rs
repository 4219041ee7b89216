//! The transactions that were given up and are kept: a block may have one of them nonetheless. The
//! store has them; memory holds where the questions for them are.

use crate::outbox::{
    record::{Network, Record, TxId},
    store::{GivenUpPlace, Reader, StoreError},
};

/// The transactions that are asked for behind each block, while some are to be.
const ASKED_PER_BLOCK: usize = 32;

/// The transactions of a network that were given up.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    /// Whether the store may have some.
    pub(super) is_there: bool,
    /// Blocks came untold: all are asked for, in turn.
    pub(super) round: Option<Round>,
    /// The last one of the last round.
    last: Option<GivenUpPlace>,
}

/// A round over all of them, from behind one on, over the last and the first, back to that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// The last one that was asked for; `None`: the first one is next.
    after: Option<GivenUpPlace>,
    /// The last one of the round; `None`: the very last of all.
    end: Option<GivenUpPlace>,
    /// Whether the round has come to the first one again.
    is_around: bool,
}

impl GivenUp {
    pub(super) fn new(is_there: bool) -> Self {
        Self { is_there, ..Self::default() }
    }

    /// The life of a transaction is over.
    pub(super) fn ended(&mut self, record: &Record) {
        self.is_there |= record.state.is_given_up();
    }

    /// Blocks came untold, and each may have one of these. None loses its turn.
    pub(super) fn ask_for_all(&mut self) {
        let after = self.round.take().map_or_else(|| self.last.clone(), |round| round.after);
        self.round = Some(Round { end: after.clone(), after, is_around: false });
    }

    /// Some were asked for. `None`: the round is over with them.
    pub(super) fn asked(&mut self, asked: &[Record], round: Option<Round>) {
        if let Some(record) = asked.last() {
            self.last = Some((record.id.hash, record.id.tenant.clone()));
        }
        self.round = round;
    }
}

impl Round {
    /// The records that are to be asked for next, and the rest of the round.
    pub(super) fn next(
        mut self,
        reader: &Reader,
        network: &Network,
    ) -> Result<(Vec<Record>, Option<Self>), StoreError> {
        let mut found = Vec::new();
        if !self.is_around {
            found = reader.given_up(network, self.after.as_ref(), None, ASKED_PER_BLOCK)?;
            if found.len() < ASKED_PER_BLOCK {
                (self.is_around, self.after) = (true, None);
            }
        }
        let mut is_over = false;
        if self.is_around {
            let wanted = ASKED_PER_BLOCK - found.len();
            let more = match &self.end {
                Some(end) => reader.given_up(network, self.after.as_ref(), Some(end), wanted)?,
                None => Vec::new(),
            };
            is_over = more.len() < wanted;
            found.extend(more);
        }
        if let Some(last) = found.last() {
            self.after = Some(last.clone());
        }
        let record = |(hash, tenant)| reader.record(&TxId { tenant, network: network.clone(), hash });
        let records = found.into_iter().map(record).filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()?;
        Ok((records, (!is_over).then_some(self)))
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{B256, U256};

    use super::*;
    use crate::outbox::{
        record::{State, TenantName},
        relay::rows::tests::record,
        step::Step,
        store::{Store, pretend_disk::PretendDisk},
    };

    fn id(number: u64, tenant: &str) -> TxId {
        TxId { tenant: tenant.parse().unwrap(), network: "main".into(), hash: B256::from(U256::from(number)) }
    }

    /// A store with given-up transactions of these numbers, the even ones of two tenants, and
    /// others around them.
    async fn store(numbers: std::ops::RangeInclusive<u64>) -> Store {
        let store = Store::inline(Box::new(PretendDisk::new())).unwrap();
        let mut step = Step::new();
        for number in numbers {
            let tenants: &[&str] = if number.is_multiple_of(2) { &["a", "ab"] } else { &["a"] };
            for tenant in tenants {
                let mut record = record(number as usize, State::Expired);
                record.id = id(number, tenant);
                step.update(record.clone());
                record.id.network = "main2".into();
                step.update(record.clone());
                record.id = id(number + 1000, tenant);
                record.state = State::Sent;
                step.update(record);
            }
        }
        store.commit(step).await.unwrap();
        store
    }

    /// The next that are asked for.
    fn next(given_up: &mut GivenUp, store: &Store) -> Vec<TxId> {
        let Some(round) = given_up.round.clone() else { return Vec::new() };
        let (records, round) = round.next(&store.read().unwrap(), &"main".into()).unwrap();
        given_up.asked(&records, round);
        records.into_iter().map(|record| record.id).collect()
    }

    #[tokio::test]
    async fn all_are_asked_for_in_turn_once() {
        let store = store(1..=50).await;
        let mut given_up = GivenUp::new(true);
        assert!(next(&mut given_up, &store).is_empty(), "no block came untold");
        given_up.ask_for_all();
        let asked: Vec<Vec<TxId>> = (0..4).map(|_| next(&mut given_up, &store)).collect();
        assert_eq!(asked.iter().map(Vec::len).collect::<Vec<_>>(), [32, 32, 11, 0]);
        let two = |number: u64| if number.is_multiple_of(2) { vec!["a", "ab"] } else { vec!["a"] };
        let all: Vec<TxId> =
            (1..=50).flat_map(|number| two(number).into_iter().map(move |tenant| id(number, tenant))).collect();
        assert_eq!(asked.concat(), all);
        // Blocks that go on to come untold keep none from its turn.
        given_up.ask_for_all();
        let first = next(&mut given_up, &store);
        given_up.ask_for_all();
        let second = next(&mut given_up, &store);
        assert_eq!((first.len(), second.len()), (32, 32));
        assert!(first.iter().all(|id| !second.contains(id)));
        let rest: Vec<TxId> = std::iter::repeat_with(|| next(&mut given_up, &store)).take(4).flatten().collect();
        let mut round = [second, rest].concat();
        assert_eq!(round.len(), 75, "the second round is whole, and begins behind the first page");
        round.sort_by_key(|id| (id.hash, id.tenant.clone()));
        assert_eq!(round, all);
    }

    #[tokio::test]
    async fn a_round_ends_though_its_last_one_is_gone() {
        let store = store(1..=40).await;
        let mut given_up = GivenUp::new(true);
        given_up.ask_for_all();
        _ = next(&mut given_up, &store);
        given_up.ask_for_all();
        let mut step = Step::new();
        for number in 1..=40 {
            for tenant in ["a", "ab"].map(|tenant| tenant.parse::<TenantName>().unwrap()) {
                step.remove(TxId { tenant, ..id(number, "a") });
            }
        }
        store.commit(step).await.unwrap();
        assert!(next(&mut given_up, &store).is_empty() && given_up.round.is_none());
        assert!(!store.read().unwrap().has_given_up(&"main".into()).unwrap());
    }
}
