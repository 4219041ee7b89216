//! All filters of one network, and the records that are kept for them. No I/O, and no clock of its
//! own.

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::B256;
use tokio::{sync::watch, time::Instant};

use super::{
    backlog::Backlog,
    clients::Clients,
    held::{Held, Kind, News, Taken, Why},
    ids::Ids,
    tape::{Lack, Most, Tape},
};
use crate::{
    chain::Change,
    config,
    domain::{client::Peer, refusal::Refusal},
    memory::Claim,
    view::{Block, Filter, Interested, Log, SubscriptionId},
};

/// Bytes of memory of a filter besides its criteria.
const FILTER: usize = 512;
/// Bytes of memory of a transaction besides its text.
const TEXT: usize = 64;

/// A block that is canonical no longer, with its logs (marked as removed) if the logs were found.
pub(in crate::view) type Went = (B256, Option<(Arc<Block>, Arc<[Log]>)>);

/// All filters of one network.
pub(super) struct Registry {
    pub(super) settings: config::Filters,
    held: BTreeMap<SubscriptionId, Held>,
    /// Filters of each kind.
    counts: [usize; 4],
    clients: Clients,
    /// The criteria of log filters, each with the number of filters that share them.
    criteria: BTreeMap<Arc<Filter>, usize>,
    backlog: Backlog,
    /// Hashes of transactions, and whole ones.
    transactions: [Tape<Arc<str>>; 2],
    /// Counts the memory of the filters themselves.
    own: Claim,
    /// Counts the memory of the backlog and of the transactions.
    kept: Claim,
    /// Keeps the chain followed. Set while there is a filter of blocks or logs.
    interested: Option<Interested>,
    ids: Ids,
    /// Why filters were dropped, for the log and the metrics.
    dropped: Vec<Why>,
    /// The last use of the filter that was not used for longest when all were looked at. No filter
    /// was last used before that.
    oldest: Option<Instant>,
}

impl Registry {
    /// `own` counts the memory of the filters themselves, `kept` that of the records.
    pub(super) fn new(settings: config::Filters, ids: Ids, own: Claim, kept: Claim) -> Self {
        Self {
            settings,
            held: BTreeMap::new(),
            counts: [0; 4],
            clients: Clients::default(),
            criteria: BTreeMap::new(),
            backlog: Backlog::default(),
            transactions: Default::default(),
            own,
            kept,
            interested: None,
            ids,
            dropped: Vec::new(),
            oldest: None,
        }
    }

    /// Filters of blocks, of logs, of transactions' hashes, and of whole transactions.
    pub(super) fn counts(&self) -> [usize; 4] {
        self.counts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes of memory of the filters themselves.
    pub(super) fn bytes(&self) -> usize {
        self.own.bytes()
    }

    /// Bytes of the records that are kept until filters are polled.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog.tape().bytes() + self.transactions.iter().map(Tape::bytes).sum::<usize>()
    }

    /// The number of the newest change in the backlog.
    pub(super) fn seq(&self) -> u64 {
        self.backlog.seq()
    }

    /// Why filters were dropped since the last call.
    pub(super) fn take_dropped(&mut self) -> Vec<Why> {
        std::mem::take(&mut self.dropped)
    }

    /// Adds a filter. Its first poll begins with what happens after this. All
    /// filters are looked at only where the time of one may be over, so that a client that is
    /// refused again and again cannot force such looks.
    pub(super) fn add(
        &mut self,
        kind: Kind,
        client: Option<Peer>,
        interested: Option<Interested>,
        now: Instant,
    ) -> Result<SubscriptionId, Refusal> {
        let mut bytes = FILTER;
        let mut shared = 0;
        if let Kind::Logs { filter, range } = &kind {
            bytes += filter.bytes() + range.len();
            // Equal criteria are kept once. Each client's share counts them in full.
            shared = if self.criteria.contains_key(filter) { filter.bytes() } else { 0 };
        }
        self.clients.check(client, bytes, &self.settings)?;
        let max = self.settings.max.get();
        if self.held.len() >= max && self.oldest.is_none_or(|oldest| oldest + self.settings.timeout < now) {
            self.sweep(now);
        }
        if self.held.len() >= max {
            return Err(Refusal::Limit { name: "filters.max", limit: max });
        }
        self.own.resize(self.own.bytes() + bytes - shared)?;
        let kind = match kind {
            Kind::Logs { filter, range } => {
                let filter = self.criteria.get_key_value(&filter).map_or(filter, |(known, _)| known.clone());
                *self.criteria.entry(filter.clone()).or_insert(0) += 1;
                Kind::Logs { filter, range }
            }
            kind => kind,
        };
        self.clients.add(client, bytes);
        if self.interested.is_none() {
            self.interested = interested;
        }
        let cursor = match &kind {
            Kind::Blocks | Kind::Logs { .. } => self.backlog.tape().end(),
            Kind::Transactions { full } => self.transactions[usize::from(*full)].end(),
        };
        self.counts[kind.place()] += 1;
        let id = self.ids.draw();
        let since = self.backlog.seq();
        self.held.insert(id, Held::new(kind, cursor, since, now, client, bytes));
        Ok(id)
    }

    /// Removes a filter on its client's behalf. `false` if there was none, or its time was over.
    pub(super) fn end(&mut self, id: SubscriptionId, now: Instant) -> bool {
        let is_late = self.held.get(&id).is_some_and(|held| held.used + self.settings.timeout < now);
        self.remove(id, is_late.then_some(Why::Timeout)) && !is_late
    }

    fn remove(&mut self, id: SubscriptionId, why: Option<Why>) -> bool {
        let Some(held) = self.held.remove(&id) else { return false };
        self.dropped.extend(why);
        self.counts[held.kind.place()] -= 1;
        self.clients.remove(held.client, held.bytes);
        let mut bytes = held.bytes;
        if let Kind::Logs { filter, .. } = &held.kind
            && let Some(count) = self.criteria.get_mut(filter)
        {
            *count -= 1;
            if *count == 0 {
                self.criteria.remove(filter);
            } else {
                // Other filters share the criteria.
                bytes -= filter.bytes();
            }
        }
        self.own.set(self.own.bytes().saturating_sub(bytes));
        if self.counts[0] + self.counts[1] == 0 {
            self.interested = None;
        }
        if self.held.is_empty() {
            self.trim();
        }
        true
    }

    fn remove_all(&mut self, why: Why, is_meant: impl Fn(&Self, &Held) -> bool) {
        let meant = self.held.iter().filter(|(_, held)| is_meant(self, held)).map(|(id, _)| *id);
        for id in meant.collect::<Vec<_>>() {
            self.remove(id, Some(why));
        }
    }

    /// The kind of the filter with this id; `None` if there is none, or if its time is over, which
    /// removes the filter. A poll begins the filter's time anew.
    pub(super) fn look_up(&mut self, id: SubscriptionId, is_polled: bool, now: Instant) -> Option<Kind> {
        if self.held.get(&id)?.used + self.settings.timeout < now {
            self.remove(id, Some(Why::Timeout));
            return None;
        }
        let held = self.held.get_mut(&id)?;
        if is_polled {
            held.used = now;
        }
        Some(held.kind.clone())
    }

    /// Whether logs that the filter may want are still being fetched.
    pub(super) fn awaits(&self, id: SubscriptionId) -> bool {
        self.held.get(&id).is_some_and(|held| match &held.kind {
            Kind::Logs { filter, .. } => self.backlog.awaits(filter, held.cursor),
            Kind::Blocks | Kind::Transactions { .. } => false,
        })
    }

    /// A channel whose sender is dropped when a poll of the filter has ended, when the fate of an
    /// answer to one is known, or when the filter is gone.
    pub(super) fn bell(&mut self, id: SubscriptionId) -> Option<watch::Receiver<()>> {
        Some(self.held.get_mut(&id)?.bell())
    }

    /// Whether an answer to a poll is on its way to the filter's client.
    pub(super) fn is_under_way(&self, id: SubscriptionId) -> bool {
        self.held.get(&id).is_some_and(Held::is_under_way)
    }

    /// Takes the entries that a filter has yet to send, as many as fit, and none while an answer is
    /// on its way. From now on the entries count as sent, until [`Registry::settle`] gives the
    /// answer's fate.
    pub(super) fn take(&mut self, id: SubscriptionId, most: Most, now: Instant) -> Option<Taken> {
        let held = self.held.get_mut(&id)?;
        if held.is_under_way() {
            return Some(Taken { news: News::Hashes(Vec::new()), from: held.cursor });
        }
        let taken = match &held.kind {
            Kind::Blocks => Ok(self.backlog.hashes(held.cursor, most)).map(|(hashes, to)| (News::Hashes(hashes), to)),
            Kind::Logs { filter, .. } => {
                let taken = self.backlog.logs(filter, held.since, held.cursor, most);
                taken.map(|(texts, to)| (News::Texts(texts), to))
            }
            Kind::Transactions { full } => {
                let taken = self.transactions[usize::from(*full)].texts(held.cursor, most);
                taken.map(|(texts, to)| (News::Texts(texts), to))
            }
        };
        match taken {
            Ok((news, to)) => {
                held.used = now;
                Some(held.take(news, to))
            }
            Err(lack) => {
                let why = match lack {
                    Lack::Missing => Why::Gap,
                    Lack::TooLong => Why::TooLong,
                };
                self.remove(id, Some(why));
                None
            }
        }
    }

    /// A poll of this filter has begun.
    pub(super) fn poll_begins(&mut self, id: SubscriptionId) {
        if let Some(held) = self.held.get_mut(&id) {
            held.polls += 1;
        }
    }

    /// A poll of this filter has ended.
    pub(super) fn poll_ends(&mut self, id: SubscriptionId) {
        if let Some(held) = self.held.get_mut(&id) {
            held.polls = held.polls.saturating_sub(1);
            if held.polls == 0 {
                held.ring();
            }
        }
    }

    /// Whether a poll of this filter is under way.
    pub(super) fn is_polled(&self, id: SubscriptionId) -> bool {
        self.held.get(&id).is_some_and(|held| held.polls > 0)
    }

    /// The answer to the poll that began at position `from` was written, or is lost.
    pub(super) fn settle(&mut self, id: SubscriptionId, from: u64, has_left: bool) {
        let Some(held) = self.held.get_mut(&id) else { return };
        held.settle(from, has_left);
        held.ring();
        let (cursor, kind) = (held.cursor, held.kind.clone());
        if cursor < self.first(&kind) {
            // The backlog has dropped a part of the lost answer meanwhile.
            self.remove(id, Some(Why::Backlog));
        }
    }

    /// The criteria of all log filters, each once.
    pub(super) fn criteria(&self) -> impl Iterator<Item = &Arc<Filter>> {
        self.criteria.keys()
    }

    /// Records a change of the chain.
    pub(super) fn change(&mut self, change: &Change, removed: Vec<Went>, added: impl Iterator<Item = Arc<Block>>) {
        if change.skipped {
            self.remove_all(Why::Gap, |_, held| held.kind.is_of_the_chain());
        }
        self.backlog.change(change.seq);
        if self.interested.is_none() {
            return;
        }
        removed.into_iter().for_each(|(hash, told)| self.backlog.went(hash, told));
        added.for_each(|block| self.backlog.came(block));
        self.trim();
    }

    /// Records the logs of a block, or `None` if no node gives them.
    pub(super) fn found(&mut self, block: B256, logs: Option<&Arc<[Log]>>) {
        self.backlog.found(block, logs);
        if logs.is_some_and(|logs| !logs.is_empty()) {
            self.trim();
        }
    }

    /// Drops the log filters that cover this change, because some of its logs may be missing.
    pub(super) fn doubt(&mut self, change: u64) {
        self.remove_all(Why::Gap, |_, held| matches!(held.kind, Kind::Logs { .. }) && held.since < change);
    }

    /// Drops every filter of blocks or logs: nothing is told of the chain any more.
    pub(super) fn give_up(&mut self) {
        self.remove_all(Why::Ended, |_, held| held.kind.is_of_the_chain());
    }

    /// Records a transaction, or its hash, that waits for a block.
    pub(super) fn transaction(&mut self, full: bool, text: Arc<str>) {
        // A feed runs for a while after its last filter.
        if self.counts[Kind::Transactions { full }.place()] == 0 {
            return;
        }
        let bytes = TEXT + text.len();
        self.transactions[usize::from(full)].push(text, bytes);
        // Trimming looks at every filter, so not every transaction trims.
        if self.transactions[usize::from(full)].len().is_multiple_of(64) {
            self.trim();
        }
    }

    /// Drops the filters that were not polled for too long, and the records that no filter needs.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.remove_all(Why::Timeout, |registry, held| held.used + registry.settings.timeout < now);
        self.oldest = self.held.values().map(|held| held.used).min();
        self.trim();
    }

    /// Drops the records that every filter was told, and the oldest beyond the limits. Then drops
    /// the filters that have not been told these.
    fn trim(&mut self) {
        // The oldest positions that filters need: of the chain, of hashes, of whole transactions.
        let mut floors = [self.backlog.tape().end(), self.transactions[0].end(), self.transactions[1].end()];
        for held in self.held.values() {
            let floor = &mut floors[held.kind.place().saturating_sub(1)];
            *floor = held.floor().min(*floor);
        }
        self.backlog.drop_before(floors[0]);
        self.transactions.iter_mut().zip(&floors[1..]).for_each(|(tape, floor)| tape.drop_before(*floor));
        let config::Filters { max_backlog_blocks: most, max_backlog, .. } = self.settings;
        let mut is_cut = false;
        while self.backlog.tape().len() > most || self.backlog.tape().bytes() > max_backlog {
            self.backlog.drop_oldest();
            is_cut = true;
        }
        for tape in &mut self.transactions {
            while tape.len() > most.saturating_mul(16) || tape.bytes() > max_backlog {
                tape.drop_oldest();
                is_cut = true;
            }
        }
        while self.kept.resize(self.backlog_bytes()).is_err() {
            // The memory of all clients is full: drop the oldest entry of the largest record.
            is_cut = true;
            let longest = self.transactions.iter_mut().max_by_key(|tape| tape.bytes());
            match longest.filter(|tape| tape.bytes() > self.backlog.tape().bytes()) {
                Some(tape) => tape.drop_oldest(),
                None if self.backlog.tape().len() > 0 => self.backlog.drop_oldest(),
                None => break,
            }
        }
        if is_cut {
            self.remove_all(Why::Backlog, |registry, held| held.cursor < registry.first(&held.kind));
        }
    }

    /// The oldest position of the record that filters of this kind read.
    fn first(&self, kind: &Kind) -> u64 {
        match kind {
            Kind::Blocks | Kind::Logs { .. } => self.backlog.tape().first(),
            Kind::Transactions { full } => self.transactions[usize::from(*full)].first(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::memory::{Account, Budget};

    #[test]
    fn a_refused_filter_costs_no_look_at_live_ones() {
        let count = |n| NonZeroUsize::new(n).unwrap();
        let settings = config::Filters { max: count(3), max_per_client: count(1), ..config::Filters::default() };
        let time = settings.timeout;
        let account = Account::open(&Budget::new(1 << 20));
        let mut registry = Registry::new(settings, Ids::new([0; 32]), account.standing(), account.incoming());
        let begun = Instant::now();
        let add = |registry: &mut Registry, n: u8, now: Instant| {
            let added = registry.add(Kind::Blocks, Some(Peer::Ip([10, 0, 0, n].into())), None, now);
            let dropped = registry.take_dropped().len();
            (added.map_err(|refusal| refusal.reason()), dropped)
        };
        let ids = [1, 2, 3].map(|n| add(&mut registry, n, begun).0.unwrap());
        let full = (Err("filters.max"), 0);
        assert_eq!(add(&mut registry, 4, begun), full);
        assert_eq!(registry.oldest, Some(begun));
        // A look would find that all of them have been polled.
        ids.iter().for_each(|id| _ = registry.look_up(*id, true, begun + time / 2));
        assert_eq!(add(&mut registry, 4, begun + time), full);
        assert_eq!(registry.oldest, Some(begun), "all filters were looked at");
        let later = begun + time * 2;
        // A look would find that their time is over.
        assert_eq!(add(&mut registry, 1, later), (Err("filters.max_per_client"), 0));
        let (added, dropped) = add(&mut registry, 4, later);
        assert!(added.is_ok() && dropped == 3, "{added:?} {dropped}");
    }
}
