//! The filters that there are, and what is kept for them: no I/O, and no clock of its own.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use tokio::time::Instant;

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
    domain::{hash::Hash, refusal::Refusal},
    memory::Claim,
    view::{Block, Filter, Interested, Log, SubscriptionId},
};

/// Bytes that a filter takes besides its criteria.
const FILTER: usize = 512;
/// Bytes that a transaction's text takes besides itself.
const TEXT: usize = 64;

/// A block that went, and its logs, which say that they are removed, if they were found.
pub(in crate::view) type Went = (Hash, Option<(Arc<Block>, Arc<[Log]>)>);

/// All filters of one network.
pub(super) struct Registry {
    pub(super) settings: config::Filters,
    held: BTreeMap<SubscriptionId, Held>,
    /// How many there are of each kind.
    counts: [usize; 4],
    clients: Clients,
    /// What is wanted of logs, with how many filters want it.
    criteria: BTreeMap<Arc<Filter>, usize>,
    backlog: Backlog,
    /// Hashes of transactions, and whole ones.
    transactions: [Tape<Arc<str>>; 2],
    /// What the filters take themselves.
    own: Claim,
    /// What the record of what happened takes.
    kept: Claim,
    /// Has the chain followed, while a filter is about it.
    interested: Option<Interested>,
    ids: Ids,
    /// Filters that were dropped and are to be told of.
    dropped: Vec<Why>,
}

impl Registry {
    /// What the filters take themselves is to be counted in `own`, and what is kept for them in `kept`.
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
        }
    }

    /// How many there are: of blocks, of logs, of hashes of transactions, and of whole ones.
    pub(super) fn counts(&self) -> [usize; 4] {
        self.counts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes that the filters take themselves.
    pub(super) fn bytes(&self) -> usize {
        self.own.bytes()
    }

    /// Bytes that are kept for filters that were not polled since.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog.tape().bytes() + self.transactions.iter().map(Tape::bytes).sum::<usize>()
    }

    /// The newest change that was taken up.
    pub(super) fn seq(&self) -> u64 {
        self.backlog.seq()
    }

    /// Those that were dropped since this was asked last.
    pub(super) fn take_dropped(&mut self) -> Vec<Why> {
        std::mem::take(&mut self.dropped)
    }

    /// Adds a filter, which hears of what happens from now on.
    pub(super) fn add(
        &mut self,
        kind: Kind,
        client: Option<IpAddr>,
        interested: Option<Interested>,
        now: Instant,
    ) -> Result<SubscriptionId, Refusal> {
        let max = self.settings.max;
        self.sweep_if_full(now);
        if self.held.len() >= max.get() {
            return Err(Refusal::Limit { name: "filters.max", limit: max.get() });
        }
        let mut bytes = FILTER;
        let mut shared = 0;
        if let Kind::Logs { filter, range } = &kind {
            bytes += filter.bytes() + range.len();
            // Equal criteria are kept once; for their clients, each counts.
            shared = if self.criteria.contains_key(filter) { filter.bytes() } else { 0 };
        }
        self.clients.check(client, bytes, &self.settings)?;
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

    /// Ends a filter; tells whether it was there.
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
                // Others want the same.
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

    /// The kind of a filter, if there is one of this id. When it is polled, its time begins anew.
    pub(super) fn kind(&mut self, id: SubscriptionId, is_polled: bool, now: Instant) -> Option<Kind> {
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

    /// Whether logs that a filter may want are sought.
    pub(super) fn awaits(&self, id: SubscriptionId) -> bool {
        self.held.get(&id).is_some_and(|held| match &held.kind {
            Kind::Logs { filter, .. } => self.backlog.awaits(filter, held.cursor),
            Kind::Blocks | Kind::Transactions { .. } => false,
        })
    }

    /// Whether an answer to a poll is on its way to the filter's client.
    pub(super) fn is_under_way(&self, id: SubscriptionId) -> bool {
        self.held.get(&id).is_some_and(Held::is_under_way)
    }

    /// What a filter has not been told, as much as fits: nothing while an answer is on its way. It has been told that from now on; [`Registry::settle`] says when an answer with
    /// news has left.
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

    /// A poll of this filter waits.
    pub(super) fn poll_begins(&mut self, id: SubscriptionId) {
        if let Some(held) = self.held.get_mut(&id) {
            held.polls += 1;
        }
    }

    /// It waits no longer.
    pub(super) fn poll_ends(&mut self, id: SubscriptionId) {
        if let Some(held) = self.held.get_mut(&id) {
            held.polls = held.polls.saturating_sub(1);
        }
    }

    /// Whether a poll of this filter waits.
    pub(super) fn is_polled(&self, id: SubscriptionId) -> bool {
        self.held.get(&id).is_some_and(|held| held.polls > 0)
    }

    /// The answer with what a poll took from this position on has left, or is lost.
    pub(super) fn settle(&mut self, id: SubscriptionId, from: u64, has_left: bool) {
        let Some(held) = self.held.get_mut(&id) else { return };
        held.settle(from, has_left);
        let (cursor, kind) = (held.cursor, held.kind.clone());
        if cursor < self.first(&kind) {
            // Some of what was lost was forgotten meanwhile.
            self.remove(id, Some(Why::Backlog));
        }
    }

    /// What is wanted of logs.
    pub(super) fn criteria(&self) -> impl Iterator<Item = &Arc<Filter>> {
        self.criteria.keys()
    }

    /// Takes up how the chain changed.
    pub(super) fn change(&mut self, change: &Change, went: Vec<Went>, came: impl Iterator<Item = Arc<Block>>) {
        if change.skipped {
            self.remove_all(Why::Gap, |_, held| held.kind.is_of_the_chain());
        }
        self.backlog.change(change.seq);
        if self.interested.is_none() {
            return;
        }
        went.into_iter().for_each(|(hash, told)| self.backlog.went(hash, told));
        came.for_each(|block| self.backlog.came(block));
        self.trim();
    }

    /// The logs of a block were found, or `None` if they cannot be.
    pub(super) fn found(&mut self, block: Hash, logs: Option<&Arc<[Log]>>) {
        self.backlog.found(block, logs);
        if logs.is_some_and(|logs| !logs.is_empty()) {
            self.trim();
        }
    }

    /// Whoever wanted logs of the change of this number may lack some.
    pub(super) fn doubt(&mut self, change: u64) {
        self.remove_all(Why::Gap, |_, held| matches!(held.kind, Kind::Logs { .. }) && held.since < change);
    }

    /// Drops every filter of the chain.
    pub(super) fn give_up(&mut self) {
        self.remove_all(Why::Gap, |_, held| held.kind.is_of_the_chain());
    }

    /// A transaction waits for a block.
    pub(super) fn transaction(&mut self, full: bool, text: Arc<str>) {
        let bytes = TEXT + text.len();
        self.transactions[usize::from(full)].push(text, bytes);
        // Few filters are looked at for each transaction.
        if self.transactions[usize::from(full)].len().is_multiple_of(64) {
            self.trim();
        }
    }

    /// Drops the filters that were not polled for too long, and what nobody needs any more.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.remove_all(Why::Timeout, |registry, held| held.used + registry.settings.timeout < now);
        self.trim();
    }

    fn sweep_if_full(&mut self, now: Instant) {
        if self.held.len() >= self.settings.max.get() {
            self.sweep(now);
        }
    }

    /// Forgets what every filter was told, and what is more than may be kept; drops the filters that
    /// are behind it.
    fn trim(&mut self) {
        // Of the chain, of hashes, and of whole transactions.
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
            // All clients together hold as much as they may: the oldest of the longest goes.
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

    /// The oldest position that is kept for filters of this kind.
    fn first(&self, kind: &Kind) -> u64 {
        match kind {
            Kind::Blocks | Kind::Logs { .. } => self.backlog.tape().first(),
            Kind::Transactions { full } => self.transactions[usize::from(*full)].first(),
        }
    }
}
