//! The connections of one door: which of them is idle, and for how long. Where there are as many as
//! may be, the one that has been idle longest goes, and not the one that comes: whoever opens many
//! and says nothing then shuts out nobody but itself. Where none is idle, the client's address that
//! has clearly most of them gives up its newest to one that has few.
//!
//! A connection notes that it is busy or idle in its own seat, without a lock; the list is locked
//! where one comes, leaves, or is chosen. When none was idle at a look at all, those that become
//! idle say so, so that a refusal costs no second look.

mod seat;
mod shares;
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
    seat::{Common, FIRST, Seat},
    shares::Shares,
};

/// How many are chosen in one look at all.
const CHOSEN: usize = 32;
/// How often all are looked at while none is idle, in case one was missed that became idle during a
/// look.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a connection that has just come, or was just answered, is spared while another address
/// has clearly more than its own: its request may be on its way.
const FRESH: Duration = Duration::from_secs(1);
/// How long such a connection is spared anyway: a newcomer beyond the limit is refused in words,
/// and a connection that is closed with its request unread hears none.
const JUST_COME: Duration = Duration::from_millis(100);
/// How long somebody who comes waits for those to leave that make room.
const LONGEST_LEAVE: Duration = Duration::from_secs(1);

/// How long one that has something under way, and has to go, has to tell its client.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Connections that may be on their way out while others have taken their places already.
pub const LEAVING: usize = 32;
/// Of those, the ones that may wait for their clients to take what was written last; the others go
/// at once.
const LINGERING: usize = LEAVING / 2;
/// What is still to be written to all clients that are waited for, in bytes.
const LINGERING_BYTES: usize = 4 << 20;

/// All connections of one door.
pub struct Crowd {
    list: Mutex<List>,
    common: Arc<Common>,
    /// Rung when one has left that had to go.
    left: Notify,
}

#[derive(Default)]
struct List {
    seats: BTreeMap<u64, Arc<Seat>>,
    /// The same by addresses, without those that have to go.
    shares: Shares,
    last: u64,
    /// Of the seats, those that had to go and have not left yet.
    leaving: usize,
    /// Of those, the ones that had something under way, and since when they have to go.
    cut: VecDeque<(Instant, Arc<Seat>)>,
    /// Connections that have left their seats and say farewell, and what is still to be written to
    /// them.
    lingering: usize,
    lingering_bytes: usize,
    /// Those that were idle longest at the last look, the longest at the end, by what their seats
    /// said then and their numbers.
    chosen: Vec<(u64, u64)>,
    /// When a look at all last found none that is idle.
    found_none: Option<Instant>,
    #[cfg(test)]
    looks: usize,
}

/// What became of one that asked for a place.
pub struct Entered {
    /// `None` when there are as many as may be, none of them is idle, and no address has clearly
    /// more than this one's.
    pub place: Option<Place>,
    /// How many had to go for it.
    pub ended: Ended,
}

/// How many had to go for one that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Those that were idle longest.
    pub idle: usize,
    /// Those that had something under way, but whose address had most.
    pub busy: usize,
}

/// Whether one more may come in.
enum Room {
    /// It is in.
    Made(Place),
    /// It may when some of those have left that have to go.
    Soon,
    None,
}

impl Crowd {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { list: Mutex::default(), common: Common::new(), left: Notify::new() })
    }

    /// Takes a connection in as one among at most `limit`. `address` is the number of its client's.
    /// Others may have to go for it: they have left, or will at once, and more than [`LEAVING`] of
    /// them are waited for, for a second at most. The connection begins only later: until
    /// [`Place::rests`] it does not have to go for an idle one's sake.
    pub async fn enter(self: &Arc<Self>, limit: usize, address: u64) -> Entered {
        let mut ended = Ended::default();
        let made = async {
            loop {
                let left = self.left.notified();
                match self.room(limit, address, &mut ended) {
                    Room::Made(place) => return Some(place),
                    Room::None => return None,
                    // Who has not left by then is seen off.
                    Room::Soon => _ = timeout(LAST_WORDS, left).await,
                }
            }
        };
        let place = timeout(LONGEST_LEAVE, made).await.ok().flatten();
        Entered { place, ended }
    }

    /// Makes room for one more, and takes it in before another can have the room. `count` grows by
    /// those that had to go.
    fn room(self: &Arc<Self>, limit: usize, address: u64, count: &mut Ended) -> Room {
        let mut list = self.lock();
        let late = list.see_off(Instant::now());
        let (mut ended, mut cut) = (Vec::new(), Vec::new());
        // More than one has to go where there may be fewer than before.
        while list.seats.len() - list.leaving >= limit && ended.len() + cut.len() < CHOSEN {
            let missing = list.seats.len() - list.leaving - limit + 1;
            match list.choose(&self.common) {
                Some(seat) => ended.push(seat),
                // None goes for one that is not let in after all.
                None if !list.shares.can_give(address, missing) => break,
                None => match list.outnumbering(address) {
                    Some((seat, true)) => ended.push(seat),
                    Some((seat, false)) => cut.push(seat),
                    None => break,
                },
            }
        }
        let room = match list.seats.len() {
            all if all - list.leaving >= limit && ended.is_empty() && cut.is_empty() => Room::None,
            all if all - list.leaving >= limit || all + list.lingering >= limit + LEAVING => Room::Soon,
            _ => {
                let seat = Seat::new(self.common.clone(), list.last + 1, address);
                list.last += 1;
                list.seats.insert(seat.number(), seat.clone());
                list.shares.add(&seat);
                Room::Made(Place::new(self.clone(), seat))
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
            list.shares.remove(seat);
        } else {
            list.leaving -= 1;
            list.cut.retain(|(_, cut)| cut.number() != seat.number());
            drop(list);
            self.left.notify_waiters();
        }
    }

    /// Lets a connection that has left say farewell, with so many bytes to be written before it,
    /// unless too many do.
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
    /// The one that has been idle longest, which is idle no more but has to go.
    fn choose(&mut self, common: &Common) -> Option<Arc<Seat>> {
        let seat = self.longest_idle(common)?;
        self.shares.remove(&seat);
        self.leaving += 1;
        Some(seat)
    }

    /// The newest of the address that has clearly more than this one, which has to go; and whether
    /// it is idle.
    fn outnumbering(&mut self, address: u64) -> Option<(Arc<Seat>, bool)> {
        loop {
            let seat = self.shares.outnumbering(address)?;
            self.shares.remove(&seat);
            // It may be just about to leave by itself.
            let Some(is_idle) = seat.gives_way() else { continue };
            self.leaving += 1;
            if !is_idle {
                self.cut.push_back((Instant::now(), seat.clone()));
            }
            return Some((seat, is_idle));
        }
    }

    /// Those that should have told their clients by now.
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
        // Whoever becomes idle from now on says so.
        common.ask_who_rests(true);
        self.look();
        let found = self.take_chosen(common);
        let is_none = found.is_none() && self.chosen.is_empty();
        self.found_none = is_none.then(Instant::now);
        common.ask_who_rests(is_none);
        found
    }

    /// The next of those chosen; `None` where none is left, or the next one is spared.
    fn take_chosen(&mut self, common: &Common) -> Option<Arc<Seat>> {
        let now = common.millis(Instant::now());
        let since = |spared: Duration| now.saturating_sub(spared.as_millis() as u64).max(FIRST);
        let (just_come, fresh) = (since(JUST_COME), since(FRESH));
        while let Some((idle_since, number)) = self.chosen.pop() {
            // It may have had something to do since it was chosen.
            let Some(seat) = self.seats.get(&number).filter(|seat| seat.idle_since() == Some(idle_since)) else {
                continue;
            };
            let is_outnumbered = || self.shares.outnumbering(seat.address()).is_some();
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

    /// Looks at all.
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
