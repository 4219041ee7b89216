//! The filters that there are, and what is kept for them: no I/O, and no clock of its own.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    backlog::{Backlog, Missing, Tape},
    ids::Ids,
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

/// What a filter is about.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Blocks that become canonical.
    Blocks,
    /// Logs.
    Logs {
        filter: Arc<Filter>,
        /// The members of a filter object that say which blocks its past logs are of.
        range: Box<str>,
    },
    /// Transactions that wait for a block: whole, or their hashes.
    Transactions { full: bool },
}

impl Kind {
    /// Its place in [`Registry::counts`].
    fn place(&self) -> usize {
        match self {
            Self::Blocks => 0,
            Self::Logs { .. } => 1,
            Self::Transactions { full: false } => 2,
            Self::Transactions { full: true } => 3,
        }
    }
}

/// Why a filter was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It was not polled for too long.
    Timeout,
    /// More happened since its last poll than is kept.
    Backlog,
    /// Blocks, or the logs of one, cannot be had.
    Gap,
    /// An answer was lost, and later changes were given already.
    Lost,
}

impl Why {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Backlog => "backlog",
            Self::Gap => "gap",
            Self::Lost => "lost_answer",
        }
    }
}

#[derive(Debug)]
struct Held {
    kind: Kind,
    /// What happens from this position on is news.
    cursor: u64,
    /// From here on it is kept, for answers that have not left yet.
    floor: u64,
    /// How many those are.
    under_way: u32,
    /// It hears of the changes after this one.
    since: u64,
    used: Instant,
    client: Option<IpAddr>,
}

/// What a poll takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) news: News,
    /// From this position to that one.
    pub(super) from: u64,
    pub(super) to: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Hashes(Vec<Hash>),
    Texts(Vec<Arc<str>>),
}

/// All filters of one network.
pub(super) struct Registry {
    pub(super) settings: config::Filters,
    held: BTreeMap<SubscriptionId, Held>,
    /// How many there are of each kind.
    counts: [usize; 4],
    /// How many each client has.
    clients: BTreeMap<IpAddr, usize>,
    /// What is wanted of logs, with how many filters want it.
    criteria: BTreeMap<Arc<Filter>, usize>,
    backlog: Backlog,
    /// Hashes of transactions, and whole ones.
    transactions: [Tape<Arc<str>>; 2],
    /// What the filters take, and what is kept for them.
    claims: [Claim; 2],
    /// Has the chain followed, while a filter is about it.
    interested: Option<Interested>,
    ids: Ids,
    /// Filters that were dropped and are to be told of.
    dropped: Vec<Why>,
}

impl Registry {
    pub(super) fn new(settings: config::Filters, ids: Ids, claims: [Claim; 2]) -> Self {
        Self {
            settings,
            held: BTreeMap::new(),
            counts: [0; 4],
            clients: BTreeMap::new(),
            criteria: BTreeMap::new(),
            backlog: Backlog::default(),
            transactions: Default::default(),
            claims,
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
        let config::Filters { max, max_per_client, .. } = self.settings;
        self.sweep_if_full(now);
        if self.held.len() >= max.get() {
            return Err(Refusal::Limit { name: "filters.max", limit: max.get() });
        }
        let client = client.map(block_of);
        if client.is_some_and(|client| self.clients.get(&client).is_some_and(|count| *count >= max_per_client.get())) {
            return Err(Refusal::Limit { name: "filters.max_per_client", limit: max_per_client.get() });
        }
        let kind = match kind {
            Kind::Logs { filter, range } => {
                let known = self.criteria.get_key_value(&filter).map(|(known, _)| known.clone());
                let is_new = known.is_none();
                let filter = known.unwrap_or(filter);
                self.claims[0].resize(self.claims[0].bytes() + FILTER + if is_new { filter.bytes() } else { 0 })?;
                *self.criteria.entry(filter.clone()).or_insert(0) += 1;
                Kind::Logs { filter, range }
            }
            kind => {
                self.claims[0].resize(self.claims[0].bytes() + FILTER)?;
                kind
            }
        };
        if self.interested.is_none() {
            self.interested = interested;
        }
        let cursor = match &kind {
            Kind::Blocks | Kind::Logs { .. } => self.backlog.tape().end(),
            Kind::Transactions { full } => self.transactions[usize::from(*full)].end(),
        };
        self.counts[kind.place()] += 1;
        if let Some(client) = client {
            *self.clients.entry(client).or_insert(0) += 1;
        }
        let id = self.ids.draw();
        let since = self.backlog.seq();
        self.held.insert(id, Held { kind, cursor, floor: cursor, under_way: 0, since, used: now, client });
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
        if let Some(client) = held.client
            && let Some(count) = self.clients.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
        let mut bytes = FILTER;
        if let Kind::Logs { filter, .. } = &held.kind
            && let Some(count) = self.criteria.get_mut(filter)
        {
            *count -= 1;
            if *count == 0 {
                self.criteria.remove(filter);
                bytes += filter.bytes();
            }
        }
        self.claims[0].set(self.claims[0].bytes().saturating_sub(bytes));
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

    /// What a filter has not been told. It has been told that from now on; [`Registry::settle`] says
    /// when the answer has left.
    pub(super) fn take(&mut self, id: SubscriptionId, now: Instant) -> Option<Taken> {
        let held = self.held.get_mut(&id)?;
        let from = held.cursor;
        let (news, to) = match &held.kind {
            Kind::Blocks => {
                let (hashes, to) = self.backlog.hashes(from);
                (News::Hashes(hashes), to)
            }
            Kind::Logs { filter, .. } => match self.backlog.logs(filter, held.since, from) {
                Ok((texts, to)) => (News::Texts(texts), to),
                Err(Missing) => {
                    self.remove(id, Some(Why::Gap));
                    return None;
                }
            },
            Kind::Transactions { full } => {
                let tape = &self.transactions[usize::from(*full)];
                (News::Texts(tape.from(from).map(|(_, text)| text.clone()).collect()), tape.end())
            }
        };
        if held.under_way == 0 {
            held.floor = from;
        }
        held.under_way += 1;
        (held.cursor, held.used) = (to, now);
        Some(Taken { news, from, to })
    }

    /// The answer with what a poll took has left, or is lost.
    pub(super) fn settle(&mut self, id: SubscriptionId, taken: (u64, u64), has_left: bool) {
        let Some(kind) = self.held.get(&id).map(|held| held.kind.clone()) else { return };
        let is_kept = taken.0 >= self.first(&kind);
        let Some(held) = self.held.get_mut(&id) else { return };
        held.under_way = held.under_way.saturating_sub(1);
        if !has_left && taken.0 < taken.1 && !is_kept {
            // Some of it was forgotten meanwhile.
            self.remove(id, Some(Why::Backlog));
            return;
        }
        if !has_left && held.cursor == taken.1 {
            // The next poll gives it again.
            held.cursor = taken.0;
        } else if !has_left && taken.0 < taken.1 {
            // To give it again would give again what came after it.
            self.remove(id, Some(Why::Lost));
            return;
        }
        if held.under_way == 0 {
            held.floor = held.cursor;
        }
    }

    /// What is wanted of logs.
    pub(super) fn criteria(&self) -> impl Iterator<Item = &Arc<Filter>> {
        self.criteria.keys()
    }

    /// Takes up how the chain changed.
    pub(super) fn change(&mut self, change: &Change, went: Vec<Went>, came: impl Iterator<Item = Arc<Block>>) {
        if change.skipped {
            self.remove_all(Why::Gap, |_, held| held.is_of_the_chain());
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
        self.remove_all(Why::Gap, |_, held| held.is_of_the_chain());
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
            *floor = held.floor.min(*floor);
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
        while self.claims[1].resize(self.backlog_bytes()).is_err() {
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

impl Held {
    fn is_of_the_chain(&self) -> bool {
        matches!(self.kind, Kind::Blocks | Kind::Logs { .. })
    }
}

/// The addresses that count as one client's: of IPv6, a host has a whole block.
fn block_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}
