//! Clients' calls that wait for a connection. Rule: addresses take turns; within an address its
//! connections take turns; the calls of a connection keep their order. A new waiter, and one that
//! has had its turn, goes behind all others. Reason: a client with many calls must not delay one
//! with few. Example: address a has 100 calls waiting and address b one; b's call is at most the
//! second. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::share::Has;

/// How many are looked at for one that may have a connection.
pub(super) const SEARCHED: usize = 64;
/// Of these, connections of one address at most, so that other addresses are found behind it.
const OF_ONE_ADDRESS: usize = 8;

/// A waiter's place in the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    /// The order of arrival; unique.
    pub(super) id: u64,
    pub(super) address: u64,
    pub(super) connection: u64,
}

/// The line.
pub(super) struct FairQueue<W> {
    /// The last turn that was given out.
    turn: u64,
    addresses: Rotation<Rotation<BTreeMap<u64, W>>>,
    /// Waiters that had no connection in use when they came: first those of addresses without any,
    /// then those of connections without any. They may have connections that are kept for
    /// newcomers.
    newcomers: [BTreeSet<Ticket>; 2],
}

/// Members that take turns.
struct Rotation<V> {
    turns: BTreeMap<u64, (u64, V)>,
    /// The turn of each member.
    of: BTreeMap<u64, u64>,
}

impl<V> Default for Rotation<V> {
    fn default() -> Self {
        Self { turns: BTreeMap::new(), of: BTreeMap::new() }
    }
}

impl<V: Default> Rotation<V> {
    fn get(&self, member: u64) -> Option<&V> {
        Some(&self.turns.get(self.of.get(&member)?)?.1)
    }

    fn get_mut(&mut self, member: u64) -> Option<&mut V> {
        Some(&mut self.turns.get_mut(self.of.get(&member)?)?.1)
    }

    /// The member. A new member joins at this `turn`.
    fn join(&mut self, member: u64, turn: u64) -> &mut V {
        let turn = *self.of.entry(member).or_insert(turn);
        &mut self.turns.entry(turn).or_insert_with(|| (member, V::default())).1
    }

    fn remove(&mut self, member: u64) -> Option<V> {
        Some(self.turns.remove(&self.of.remove(&member)?)?.1)
    }

    /// The member comes next at this `turn`.
    fn moves(&mut self, member: u64, turn: u64) {
        if let Some(value) = self.remove(member) {
            self.of.insert(member, turn);
            self.turns.insert(turn, (member, value));
        }
    }

    fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// In the order of their turns.
    fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.turns.values().map(|(member, value)| (*member, value))
    }
}

impl<W> Default for FairQueue<W> {
    fn default() -> Self {
        Self { turn: 0, addresses: Rotation::default(), newcomers: Default::default() }
    }
}

impl<W> FairQueue<W> {
    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Adds a waiter; `has` says which connections its address and client connection already use.
    pub(super) fn push(&mut self, ticket: Ticket, has: Has, waiter: W) {
        let group = self.addresses.get(ticket.address);
        if !has.address && group.is_none() {
            self.newcomers[0].insert(ticket);
        } else if !has.own && group.is_none_or(|group| group.get(ticket.connection).is_none()) {
            self.newcomers[1].insert(ticket);
        }
        self.turn += 1;
        let group = self.addresses.join(ticket.address, self.turn);
        group.join(ticket.connection, self.turn).insert(ticket.id, waiter);
    }

    pub(super) fn get(&self, ticket: Ticket) -> Option<&W> {
        self.addresses.get(ticket.address)?.get(ticket.connection)?.get(&ticket.id)
    }

    /// Removes a waiter that gave up; the turns of its connection and address stay.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<W> {
        self.newcomers.iter_mut().for_each(|of_a_kind| _ = of_a_kind.remove(&ticket));
        let group = self.addresses.get_mut(ticket.address)?;
        let calls = group.get_mut(ticket.connection)?;
        let waiter = calls.remove(&ticket.id)?;
        if calls.is_empty() {
            group.remove(ticket.connection);
        }
        if group.is_empty() {
            self.addresses.remove(ticket.address);
        }
        Some(waiter)
    }

    /// Takes out a waiter that gets its turn.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<W> {
        let waiter = self.remove(ticket)?;
        self.turn += 1;
        if let Some(group) = self.addresses.get_mut(ticket.address) {
            group.moves(ticket.connection, self.turn);
            self.addresses.moves(ticket.address, self.turn);
        }
        Some(waiter)
    }

    /// The next waiter among those that `may`.
    pub(super) fn first(&self, may: impl Fn(&W) -> bool) -> Option<Ticket> {
        let by_turns = self.addresses.iter().flat_map(|(address, group)| of_one(address, group).take(OF_ONE_ADDRESS));
        let found = by_turns.take(SEARCHED).find(|(_, waiter)| may(waiter)).map(|(ticket, _)| ticket);
        let is_allowed = |ticket: &&Ticket| self.get(**ticket).is_some_and(&may);
        let new = |kind: &BTreeSet<Ticket>| kind.iter().take(SEARCHED).find(is_allowed).copied();
        found.or_else(|| self.newcomers.iter().find_map(new))
    }

    /// The first of each connection, in the order of their turns.
    pub(super) fn near(&self) -> impl Iterator<Item = (Ticket, &W)> {
        self.addresses.iter().flat_map(|(address, group)| of_one(address, group)).take(SEARCHED)
    }
}

/// The first of each of an address's connections.
fn of_one<W>(address: u64, group: &Rotation<BTreeMap<u64, W>>) -> impl Iterator<Item = (Ticket, &W)> {
    group.iter().filter_map(move |(connection, calls)| {
        let (id, waiter) = calls.first_key_value()?;
        Some((Ticket { id: *id, address, connection }, waiter))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line with these waiters, by address and connection; each waiter is its number.
    fn line(of: &[(u64, u64)]) -> FairQueue<u64> {
        let mut line = FairQueue::default();
        for (id, (address, connection)) in (0..).zip(of) {
            line.push(Ticket { id, address: *address, connection: *connection }, Has { own: true, address: true }, id);
        }
        line
    }

    fn order(line: &mut FairQueue<u64>) -> Vec<u64> {
        std::iter::from_fn(|| line.first(|_| true).and_then(|ticket| line.take(ticket))).collect()
    }

    #[test]
    fn addresses_take_turns_and_so_do_the_connections_of_each() {
        let of = [(1, 10), (1, 10), (1, 10), (1, 11), (2, 20), (1, 12), (2, 20)];
        assert_eq!(order(&mut line(&of)), [0, 4, 3, 6, 5, 1, 2]);
        let mut line = line(&of);
        assert_eq!(line.remove(Ticket { id: 4, address: 2, connection: 20 }), Some(4));
        assert_eq!(line.remove(Ticket { id: 4, address: 2, connection: 20 }), None);
        assert_eq!(order(&mut line), [0, 6, 3, 5, 1, 2]);
        assert!(line.is_empty() && line.newcomers.iter().all(BTreeSet::is_empty));
    }

    #[test]
    fn waiter_that_may_is_found_behind_many_that_may_not() {
        let mut line = FairQueue::default();
        let has = Has { own: true, address: true };
        for id in 0..1000 {
            line.push(Ticket { id, address: id % 100, connection: id }, has, "greedy");
        }
        line.push(Ticket { id: 1001, address: 7, connection: 2000 }, Has { own: false, ..has }, "new connection");
        line.push(Ticket { id: 1002, address: 500, connection: 2001 }, Has::NONE, "new address");
        let found = |line: &FairQueue<&str>, but: &str| line.first(|waiter| ![but, "greedy"].contains(waiter));
        assert_eq!(found(&line, "").map(|ticket| ticket.id), Some(1002));
        assert_eq!(found(&line, "new address").map(|ticket| ticket.id), Some(1001));
        assert!(found(&line, "new connection").and_then(|ticket| line.take(ticket)).is_some());
        assert_eq!(found(&line, "new connection"), None);
    }
}
