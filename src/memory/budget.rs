//! The sum of the bytes that clients make the proxy hold, and its limit.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use super::{Full, largest::Holders};

/// An account takes from the sum in steps of this size, in bytes.
pub(super) const STEP: usize = 16 * 1024;
/// Things that outlive their client may take an eighth of the limit in all. For as much again of
/// records, clients give way.
const STANDING_DIVISOR: usize = 8;
/// An eighth of the limit is kept for loans against promised bytes.
const CREDIT_DIVISOR: usize = 8;

/// The sum over all clients.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    held: AtomicUsize,
    /// Bytes among them that stay when their client has gone.
    standing: AtomicUsize,
    /// Bytes among them of records, which stay too.
    records: AtomicUsize,
    refused: AtomicU64,
    /// Accounts that were ever opened.
    opened: AtomicU64,
    pub(super) holders: Holders,
}

/// The direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// From clients: three quarters at most, so that the calls that were let in can be answered.
    In,
    /// For clients: all but the part that is lent.
    Out,
    /// From clients, and kept when these have gone, so that no client can be made to give them up:
    /// a small part of the three quarters.
    Standing,
    /// Kept for clients that have not asked for these bytes yet. Up to a small part of the limit,
    /// the largest account gives way to them, however little that holds: a record that is dropped
    /// is lost, and a call that is refused can be made again. Beyond, they are like bytes from
    /// clients.
    Records,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            held: AtomicUsize::new(0),
            standing: AtomicUsize::new(0),
            records: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            holders: Holders::default(),
        })
    }

    /// From now on so many bytes may be held. Bytes beyond the limit stay until given back.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// Bytes that may be held.
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// How often bytes were refused, or had to be given up for others.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Takes `more` bytes for an account that then holds `price`. Where the limit of this side is
    /// reached, the largest account has to give up its bytes, if these are more than `price`. Until
    /// its bytes are back the taker borrows: all loans together are an eighth of the limit at most.
    /// Records that hold an eighth of the limit at most borrow all that is needed, and the largest
    /// account gives way however little that account holds. So the sum exceeds the limit by an
    /// eighth at most, and only until the bytes are back.
    pub(super) fn take(&self, more: usize, price: usize, side: Side) -> Result<(), Full> {
        loop {
            let limit = self.limit();
            let most = match side {
                Side::In | Side::Standing | Side::Records => limit / 4 * 3,
                Side::Out => limit - limit / CREDIT_DIVISOR,
            };
            let is_owed =
                side == Side::Records && self.records.load(Relaxed).saturating_add(more) <= limit / STANDING_DIVISOR;
            let promised = self.holders.promised();
            // Added first, so that two accounts that take at once cannot both find room for one.
            let before = self.held.fetch_add(more, Relaxed);
            let after = before.saturating_add(more);
            if after <= most {
                return Ok(());
            }
            let is_promised = after.saturating_sub(promised) <= most;
            let most_lent = if is_owed { usize::MAX } else { limit / CREDIT_DIVISOR };
            if is_promised && self.holders.borrow(more, most_lent) {
                return Ok(());
            }
            self.held.fetch_sub(more, Relaxed);
            self.refused.fetch_add(1, Relaxed);
            // Promised bytes come soon; a client that takes more than is lent finds them then.
            if is_promised || !self.holders.evict_largest(if is_owed { 0 } else { price }) {
                return Err(Full(limit));
            }
        }
    }

    /// Notes that things which outlive their client take `after` bytes instead of `before`.
    pub(super) fn stand(&self, before: usize, after: usize) -> Result<(), Full> {
        let (more, less) = (after.saturating_sub(before), before.saturating_sub(after));
        let standing = self.standing.fetch_add(more, Relaxed) + more;
        if more > 0 && standing > self.limit() / STANDING_DIVISOR {
            self.standing.fetch_sub(more, Relaxed);
            self.refused.fetch_add(1, Relaxed);
            return Err(Full(self.limit()));
        }
        self.standing.fetch_sub(less, Relaxed);
        Ok(())
    }

    /// Counts bytes that are there already, or that come back.
    pub(super) fn adjust(&self, before: usize, after: usize) {
        shift(&self.held, before, after);
    }

    /// Notes that records take `after` bytes instead of `before`.
    pub(super) fn record(&self, before: usize, after: usize) {
        shift(&self.records, before, after);
    }

    pub(super) fn next_number(&self) -> u64 {
        self.opened.fetch_add(1, Relaxed)
    }
}

/// Counts `after` bytes instead of `before`.
fn shift(sum: &AtomicUsize, before: usize, after: usize) {
    if after > before {
        sum.fetch_add(after - before, Relaxed);
    } else {
        sum.fetch_sub(before - after, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use futures_util::task::noop_waker_ref;

    use super::*;
    use crate::memory::{Account, FREE};

    #[test]
    fn a_claim_gives_all_of_its_bytes_back() {
        let budget = Budget::new(1 << 20);
        let account = Account::open(&budget);
        {
            let (mut one, mut other) = (account.incoming(), account.outgoing());
            one.resize(100_000).unwrap();
            other.resize(50_000).unwrap();
            assert!((150_000 - FREE..150_000 + STEP).contains(&budget.held()), "{}", budget.held());
            one.resize(10).unwrap();
            assert!(budget.held() < 50_000 + STEP, "{}", budget.held());
            other.set(3 << 20);
            assert!(budget.held() > 2 << 20, "what is there already is counted, be it too much");
        }
        assert_eq!((budget.held(), budget.refused()), (0, 0));
    }

    #[test]
    fn small_calls_never_touch_the_sum() {
        let budget = Budget::new(0);
        let account = Account::open(&budget);
        let mut claim = account.incoming();
        assert_eq!((claim.resize(FREE), budget.held()), (Ok(()), 0));
        assert_eq!(claim.resize(FREE + 1), Err(Full(0)));
        assert_eq!((claim.bytes(), budget.refused()), (FREE, 1));
    }

    #[test]
    fn clients_leave_a_quarter_of_the_room_to_answers() {
        let budget = Budget::new(64 * STEP);
        let accounts = [(); 100].map(|()| Account::open(&budget));
        let of_clients = accounts.each_ref().map(|account| {
            let mut claim = account.incoming();
            claim.resize(FREE + STEP).map(|()| claim)
        });
        assert_eq!(of_clients.iter().filter(|taken| taken.is_ok()).count(), 48);
        assert_eq!(budget.held(), 48 * STEP);
        let mut answer = accounts[99].outgoing();
        // The rest is for loans.
        assert_eq!(answer.resize(FREE + 8 * STEP), Ok(()));
        assert_eq!(answer.resize(FREE + 9 * STEP), Err(Full(64 * STEP)));
        drop((of_clients, answer));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn standing_bytes_take_an_eighth_in_all() {
        let budget = Budget::new(64 * STEP);
        let [mut one, mut other] = [(); 2].map(|()| Account::open(&budget).standing());
        assert_eq!(one.resize(6 * STEP), Ok(()));
        assert_eq!((other.resize(3 * STEP), other.bytes(), budget.refused()), (Err(Full(64 * STEP)), 0, 1));
        assert_eq!(other.resize(2 * STEP), Ok(()));
        one.resize(STEP).unwrap();
        assert_eq!(other.resize(7 * STEP), Ok(()));
        // Bytes of others leave no room either, and bytes that were not given are not counted.
        let mut of_clients = Account::open(&budget).incoming();
        drop(one);
        of_clients.resize(FREE + 41 * STEP).unwrap();
        assert!(other.resize(8 * STEP).is_err());
        drop(of_clients);
        assert_eq!(other.resize(8 * STEP), Ok(()));
        drop(other);
        assert_eq!((budget.held(), budget.standing.load(Relaxed)), (0, 0));
    }

    #[test]
    fn largest_account_gives_way_to_smaller_ones() {
        let budget = Budget::new(64 * STEP);
        let [greedy, other, third] = [(); 3].map(|()| Account::of(&budget, None));
        let woken = |account: &Account| account.poll_cut(&mut Context::from_waker(noop_waker_ref())).is_ready();
        let (mut of_greedy, mut of_other) = (greedy.incoming(), other.outgoing());
        of_greedy.resize(FREE + 40 * STEP).unwrap();
        of_other.resize(FREE + 8 * STEP).unwrap();
        let mut of_third = third.incoming();
        // Its own more does not make room for itself.
        assert!(of_greedy.resize(FREE + 41 * STEP).is_err() && !woken(&greedy));
        assert_eq!(of_third.resize(FREE + 4 * STEP), Ok(()));
        assert!(woken(&greedy) && !woken(&greedy) && !woken(&other));
        // Of what is promised an eighth is had at once, and nobody else has to go meanwhile.
        assert_eq!((of_third.resize(FREE + 8 * STEP), budget.held()), (Ok(()), 56 * STEP));
        assert!(of_third.resize(FREE + 9 * STEP).is_err() && !woken(&other));
        drop(of_greedy);
        assert_eq!(of_third.resize(FREE + 9 * STEP), Ok(()));
        // Whoever has given way begins anew.
        let mut again = greedy.incoming();
        assert_eq!(again.resize(FREE + 31 * STEP), Ok(()));
        assert!(of_other.resize(FREE + 16 * STEP).is_ok() && !woken(&greedy));
        assert!(of_other.resize(FREE + 17 * STEP).is_ok() && woken(&greedy) && !woken(&third));
        drop((of_other, of_third, again));
        assert_eq!((budget.held(), budget.holders.promised()), (0, 0));
    }

    #[test]
    fn the_sum_stays_within_the_limit_on_loans_too() {
        let budget = Budget::new(64 * STEP);
        let accounts = [(); 40].map(|()| Account::of(&budget, None));
        let mut claims = accounts.each_ref().map(Account::outgoing);
        claims[0].resize(FREE + 40 * STEP).unwrap();
        // The largest is told to go, and is slow to do so, while the others take their steps.
        for step in 1..=64 {
            for claim in &mut claims[1..] {
                let _ = claim.resize(FREE + step * STEP);
                assert!(budget.held() <= budget.limit(), "{} at step {step}", budget.held());
            }
        }
        assert_eq!(budget.held(), 64 * STEP);
    }

    #[test]
    fn bytes_that_come_back_repay_loans_while_others_are_promised() {
        let budget = Budget::new(64 * STEP);
        let accounts = [(); 3].map(|()| Account::of(&budget, None));
        let [mut one, mut two, mut third] = accounts.each_ref().map(Account::outgoing);
        one.resize(FREE + 30 * STEP).unwrap();
        two.resize(FREE + 26 * STEP).unwrap();
        // The first is told to go, and all that can be lent is.
        third.resize(FREE + 8 * STEP).unwrap();
        assert!(third.resize(FREE + 9 * STEP).is_err());
        one.resize(FREE + 10 * STEP).unwrap();
        assert_eq!(budget.holders.promised(), 10 * STEP);
        let mut fourth = Account::of(&budget, None).outgoing();
        fourth.resize(FREE + 12 * STEP).unwrap();
        assert_eq!((fourth.resize(FREE + 20 * STEP), budget.held()), (Ok(()), 64 * STEP));
        assert_eq!((budget.holders.promised(), budget.holders.borrowed()), (10 * STEP, 8 * STEP));
    }

    #[test]
    fn records_have_an_eighth_whatever_clients_hold() {
        let budget = Budget::new(64 * STEP);
        let accounts = [(); 24].map(|()| Account::of(&budget, None));
        let mut claims = accounts.each_ref().map(Account::incoming);
        claims.iter_mut().for_each(|claim| claim.resize(FREE + 2 * STEP).unwrap());
        // No client makes another of its size give way, but records do, though they take more.
        assert!(claims[0].resize(FREE + 3 * STEP).is_err());
        let mut records = Account::open(&budget).records();
        for steps in 1..=8 {
            assert_eq!(records.resize(steps * STEP), Ok(()), "{steps}");
        }
        assert_eq!((budget.held(), budget.holders.promised()), (56 * STEP, 8 * STEP));
        assert!(records.resize(9 * STEP).is_err(), "beyond their part");
        // Also while all loans are given out.
        records.resize(7 * STEP).unwrap();
        let mut of_another = Account::of(&budget, None).outgoing();
        of_another.resize(FREE + STEP).unwrap();
        while budget.holders.borrowed() < 8 * STEP {
            let _ = of_another.resize(of_another.bytes() + STEP);
        }
        assert_eq!(records.resize(8 * STEP), Ok(()));
        drop((claims, of_another));
        assert_eq!((budget.held(), budget.holders.promised()), (8 * STEP, 0));
        drop(records);
        assert_eq!((budget.held(), budget.records.load(Relaxed)), (0, 0));
    }

    #[test]
    fn a_step_beyond_the_loan_makes_the_greediest_give_way() {
        let budget = Budget::new(64 * STEP);
        let [greedy, second, small] = [(); 3].map(|()| Account::of(&budget, None));
        let woken = |account: &Account| account.poll_cut(&mut Context::from_waker(noop_waker_ref())).is_ready();
        let (mut of_greedy, mut of_second) = (greedy.incoming(), second.incoming());
        of_greedy.resize(FREE + 26 * STEP).unwrap();
        of_second.resize(FREE + 20 * STEP).unwrap();
        let mut large = small.incoming();
        // An eighth is lent of a promise, and this is more at once.
        assert_eq!(large.resize(FREE + 9 * STEP), Err(Full(64 * STEP)));
        assert_eq!((large.bytes(), budget.held()), (0, 46 * STEP));
        assert!(woken(&greedy) && !woken(&second));
        // While that is on its way, another who asks costs nobody else anything.
        assert!(large.resize(FREE + 10 * STEP).is_err() && !woken(&second) && !woken(&greedy));
        assert_eq!(budget.held(), 46 * STEP);
        drop(of_greedy);
        assert_eq!(large.resize(FREE + 9 * STEP), Ok(()));
        assert_eq!((budget.held(), budget.holders.promised(), budget.holders.borrowed()), (29 * STEP, 0, 0));
        // A step that needs the bytes of several accounts gets them from one after the other.
        let mut more = Account::of(&budget, None).outgoing();
        assert_eq!(more.resize(FREE + 19 * STEP), Ok(()));
        let mut largest = Account::of(&budget, None).incoming();
        assert!(largest.resize(FREE + 18 * STEP).is_err() && woken(&second));
    }
}
