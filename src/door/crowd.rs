//! The connections of one door: which are idle, and for how long.
//!
//! Rule: where there are as many connections as may be, the one that has been idle longest ends,
//! and the newcomer gets its place. Where none is idle, the address with the most connections gives
//! up its newest, if that address has at least twice as many as the newcomer's address would have.
//! Otherwise the newcomer is refused. Reason: a client that opens many connections and says
//! nothing, or asks for much, shuts out only itself. Example: of ten places, address A has all ten,
//! and all are busy. A first connection of address B is let in, and the newest of A ends; so are a
//! second and a third. The fourth is refused, because the seven of A are less than twice four.
//!
//! A connection notes in its own seat, without a lock, that it is busy or idle; the list is locked
//! where a connection comes, leaves or is chosen. After a look at all seats has found none idle,
//! every connection that becomes idle reports that, so that a refusal costs no second look.

mod by_address;
mod seat;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

pub use self::seat::{Asked, Linger, Place, Seated, Stream};
use self::{
    by_address::SeatsByAddress,
    seat::{Common, FIRST, Seat},
};

/// How many seats one look at all of them chooses.
const CHOSEN: usize = 32;
/// How often all seats are looked at while none is idle, because a connection that became idle
/// during a look may have been missed.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a connection that has just come, or was just answered, is spared while another address
/// has clearly more than its own: a request may be on its way.
const FRESH: Duration = Duration::from_secs(1);
/// How long such a connection is spared in any case: a newcomer beyond the limit is refused with an
/// answer, while a connection that is closed with its request unread gets none.
const JUST_COME: Duration = Duration::from_millis(20);
/// How long a newcomer waits for connections to leave that make room.
const LONGEST_LEAVE: Duration = Duration::from_secs(1);

/// How long a busy connection that has to go has time to tell its client.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Connections that may be on their way out while others have taken their places already.
pub const LEAVING: usize = 32;
/// How many of these may wait for their clients to take the last bytes; the others go at once.
const LINGERING: usize = LEAVING / 2;
/// Bytes that are still to be written to all clients that are waited for.
const LINGERING_BYTES: usize = 4 << 20;

/// All connections of one door.
pub struct Crowd {
    list: Mutex<List>,
    common: Arc<Common>,
    /// Notified when a connection that had to go has left.
    left: Notify,
}

#[derive(Default)]
struct List {
    seats: BTreeMap<u64, Arc<Seat>>,
    /// The seats by addresses, without those that have to go.
    by_address: SeatsByAddress,
    last: u64,
    /// Seats that had to go and have not left yet.
    leaving: usize,
    /// The busy ones among these, and since when they have to go.
    cut: VecDeque<(Instant, Arc<Seat>)>,
    /// Connections that have left their seats and still write to their clients, and the bytes that
    /// remain.
    lingering: usize,
    lingering_bytes: usize,
    /// The seats that were idle longest at the last look, the longest at the end: since when each
    /// was idle, and its number.
    chosen: Vec<(u64, u64)>,
    /// When a look at all seats last found none idle.
    found_none: Option<Instant>,
    #[cfg(test)]
    looks: usize,
}

/// The outcome for a connection that asked for a place.
pub struct Entered {
    /// `None` when the door is full, no connection is idle, and no address has clearly more than
    /// this one's.
    pub place: Option<Place>,
    /// How many connections had to go.
    pub ended: Ended,
}

/// How many connections had to go for a newcomer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Connections that were idle longest.
    pub idle: usize,
    /// Busy connections, whose address had the most.
    pub busy: usize,
}

/// Whether there is room for a newcomer.
enum Admission {
    /// The newcomer has a place.
    Made(Place),
    /// There is room when some of the connections have left that have to go.
    Soon,
    None,
}

impl Crowd {
    /// An empty crowd.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { list: Mutex::default(), common: Common::new(), left: Notify::new() })
    }

    /// Takes a connection in as one among at most `limit`. `address` is the number of its client's
    /// address. Other connections may have to go: these have left or will at once, and where more
    /// than [`LEAVING`] are on their way they are waited for, for a second at most. The connection
    /// counts as busy until [`Place::rests`], so that no newcomer takes its place as an idle one's.
    pub async fn enter(self: &Arc<Self>, limit: usize, address: u64) -> Entered {
        let mut ended = Ended::default();
        let made = async {
            loop {
                let left = self.left.notified();
                match self.room(limit, address, &mut ended) {
                    Admission::Made(place) => return Some(place),
                    Admission::None => return None,
                    // Connections that have not left by then are ended by the next call.
                    Admission::Soon => _ = timeout(LAST_WORDS, left).await,
                }
            }
        };
        let place = timeout(LONGEST_LEAVE, made).await.ok().flatten();
        Entered { place, ended }
    }

    /// Makes room for a connection, and takes the connection in before another can have the room.
    /// `count` grows by the connections that had to go.
    fn room(self: &Arc<Self>, limit: usize, address: u64, count: &mut Ended) -> Admission {
        let mut list = self.lock();
        let late = list.see_off(Instant::now());
        let (mut ended, mut cut) = (Vec::new(), Vec::new());
        // After the limit was lowered, more than one has to go.
        while list.seats.len() - list.leaving >= limit && ended.len() + cut.len() < CHOSEN {
            let missing = list.seats.len() - list.leaving - limit + 1;
            match list.choose(&self.common) {
                Some(seat) => ended.push(seat),
                // No connection goes for a newcomer that is refused after all.
                None if !list.by_address.can_give(address, missing) => break,
                None => match list.outnumbering(address) {
                    Some((seat, true)) => ended.push(seat),
                    Some((seat, false)) => cut.push(seat),
                    None => break,
                },
            }
        }
        let room = match list.seats.len() {
            all if all - list.leaving >= limit && ended.is_empty() && cut.is_empty() => Admission::None,
            all if all - list.leaving >= limit || all + list.lingering >= limit + LEAVING => Admission::Soon,
            _ => {
                let seat = Seat::new(self.common.clone(), list.last + 1, address);
                list.last += 1;
                list.seats.insert(seat.number(), seat.clone());
                list.by_address.add(&seat);
                Admission::Made(Place::new(self.clone(), seat))
            }
        };
        drop(list);
        count.idle += ended.len();
        count.busy += cut.len();
        ended.iter().chain(&late).for_each(|seat| seat.end());
        cut.iter().for_each(|seat| seat.cut());
        room
    }

    /// Ends the connection that has been idle longest; `false` when none is idle.
    pub fn end_longest_idle(&self) -> bool {
        let mut list = self.lock();
        let Some(seat) = list.choose(&self.common) else { return false };
        drop(list);
        seat.end();
        true
    }

    /// A connection has left.
    fn leave(&self, seat: &Seat, had_to_go: bool) {
        let mut list = self.lock();
        list.seats.remove(&seat.number());
        if !had_to_go {
            list.by_address.remove(seat);
        } else {
            list.leaving -= 1;
            list.cut.retain(|(_, cut)| cut.number() != seat.number());
            drop(list);
            self.left.notify_waiters();
        }
    }

    /// Lets a connection that has left write `bytes` and a farewell to its client, unless too many
    /// do so.
    fn lingers(self: &Arc<Self>, bytes: usize) -> Option<Linger> {
        let mut list = self.lock();
        if list.lingering >= LINGERING || list.lingering_bytes + bytes > LINGERING_BYTES {
            return None;
        }
        list.lingering += 1;
        list.lingering_bytes += bytes;
        Some(Linger::new(self.clone(), bytes))
    }

    fn lingers_no_more(&self, bytes: usize) {
        let mut list = self.lock();
        list.lingering -= 1;
        list.lingering_bytes -= bytes;
        drop(list);
        self.left.notify_waiters();
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the list.
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    /// The seat that has been idle longest; from now on the connection has to go.
    fn choose(&mut self, common: &Common) -> Option<Arc<Seat>> {
        let seat = self.longest_idle(common)?;
        self.by_address.remove(&seat);
        self.leaving += 1;
        Some(seat)
    }

    /// The newest seat of an address that has clearly more than this one, and whether the seat is
    /// idle; from now on the connection has to go.
    fn outnumbering(&mut self, address: u64) -> Option<(Arc<Seat>, bool)> {
        loop {
            let seat = self.by_address.outnumbering(address)?;
            self.by_address.remove(&seat);
            // The connection may be just about to leave by itself.
            let Some(is_idle) = seat.gives_way() else { continue };
            self.leaving += 1;
            if !is_idle {
                self.cut.push_back((Instant::now(), seat.clone()));
            }
            return Some((seat, is_idle));
        }
    }

    /// The seats whose time to tell their clients is over.
    fn see_off(&mut self, now: Instant) -> Vec<Arc<Seat>> {
        let late = self.cut.iter().take_while(|(since, _)| now.duration_since(*since) >= LAST_WORDS).count();
        self.cut.drain(..late).map(|(_, seat)| seat).collect()
    }

    fn longest_idle(&mut self, common: &Common) -> Option<Arc<Seat>> {
        let found = self.take_chosen(common);
        if found.is_some() || !self.chosen.is_empty() {
            return found;
        }
        if self.found_none.is_some_and(|when| when.elapsed() < AGAIN) {
            self.chosen = common.take_rested();
            self.chosen.reverse();
            return self.take_chosen(common);
        }
        // Every seat that becomes idle from now on is reported.
        common.ask_who_rests(true);
        self.look();
        let found = self.take_chosen(common);
        let is_none = found.is_none() && self.chosen.is_empty();
        self.found_none = is_none.then(Instant::now);
        common.ask_who_rests(is_none);
        found
    }

    /// The next of the chosen seats; `None` where none is left, or the next one is spared.
    fn take_chosen(&mut self, common: &Common) -> Option<Arc<Seat>> {
        let now = common.millis(Instant::now());
        let since = |spared: Duration| now.saturating_sub(spared.as_millis() as u64).max(FIRST);
        let (just_come, fresh) = (since(JUST_COME), since(FRESH));
        while let Some((idle_since, number)) = self.chosen.pop() {
            // The connection may have been busy since the choice.
            let Some(seat) = self.seats.get(&number).filter(|seat| seat.idle_since() == Some(idle_since)) else {
                continue;
            };
            let is_outnumbered = || self.by_address.outnumbering(seat.address()).is_some();
            if idle_since > just_come || idle_since > fresh && is_outnumbered() {
                self.chosen.push((idle_since, number));
                return None;
            }
            if seat.has_to_go(idle_since) {
                return Some(seat.clone());
            }
        }
        None
    }

    /// Looks at all seats, and chooses those that have been idle longest.
    fn look(&mut self) {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let mut all: Vec<_> =
            self.seats.iter().filter_map(|(number, seat)| Some((seat.idle_since()?, *number))).collect();
        let count = all.len().min(CHOSEN);
        if count > 0 {
            all.select_nth_unstable(count - 1);
        }
        all.truncate(count);
        all.sort_unstable_by_key(|one| std::cmp::Reverse(*one));
        self.chosen = all;
    }
}
