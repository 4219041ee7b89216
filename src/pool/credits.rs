//! The credits that may be spent at a node, or at all nodes of an account.
//!
//! Rule: a call takes its credits at the moment of its writing, second attempts and second tries
//! too, and is not written if there are not enough. Credits come back at `per_second`, up to
//! `burst`: so in any time of t seconds no more than `burst + per_second * t` are spent. Those of
//! `per_day` come back at midnight UTC, when providers count anew. Reason: an operator pays for
//! all that is spent beyond. Example: `per_second = 50` and `burst = 10` let ten calls go at once,
//! and a further one each 20 ms.
//!
//! Rule: an eighth of `burst` is for questions of our own, probes above all. Reason: clients that
//! spend all they can would otherwise keep probes away, and the node's head would be unknown.
//!
//! Notifications that a node pushes cost as the method `eth_subscription`. The proxy cannot refuse
//! a notification, which so takes credits that are not there: calls wait until these have come
//! back.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Wall, resting::Rests};
use crate::{
    config::{Budget, Rate},
    metrics::{CreditMetrics, Payer},
};

/// The part of `burst` that is kept for questions of our own.
const KEPT: u64 = 8;
/// Parts of a credit, so that one comes back in each billionth of a second at one credit a second.
const PARTS: u128 = 1_000_000_000;
/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;

/// The facts that the nodes of an account share: their rests, and the credits spent there. A node
/// without an account's name has an account of its own.
pub struct Account {
    pub(super) rests: Arc<Rests>,
    /// For all that the nodes draw by lot.
    pub(super) seed: u64,
    spent: Mutex<Spent>,
    wall: Wall,
}

/// The credits that were spent.
#[derive(Clone, Copy, Debug)]
struct Spent {
    /// Parts of credits that had not come back at `at`.
    parts: u128,
    at: Instant,
    /// The day, counted from the Unix epoch, and the credits that were spent on it.
    day: u64,
    today: u64,
}

impl Account {
    /// An account at which nothing was spent. Days go by `wall`; the jitter of rests and the pauses
    /// between attempts to open links follow from `seed`.
    pub fn new(wall: Wall, seed: u64) -> Arc<Self> {
        let spent = Spent { parts: 0, at: Instant::now(), day: 0, today: 0 };
        Arc::new(Self { rests: Arc::new(Rests::jittered(seed)), seed, spent: Mutex::new(spent), wall })
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the numbers.
    fn lock(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The credits that are left now, as far as a budget limits them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Credits that could be spent at once.
    pub at_once: Option<u64>,
    /// Credits until the end of the day.
    pub today: Option<u64>,
}

/// The budget of one node, and the credits that were spent.
pub struct Credits {
    budget: Budget,
    account: Arc<Account>,
    metrics: CreditMetrics,
}

impl Credits {
    pub(super) fn new(budget: Budget, account: Arc<Account>, metrics: CreditMetrics) -> Self {
        Self { budget, account, metrics }
    }

    /// The terms.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The credits that a call of this method costs, or a request to the beacon API, whose method
    /// is empty.
    pub fn cost(&self, method: &str) -> u32 {
        self.budget.cost(method)
    }

    /// When this number of credits may be there for `payer`; `None` if enough are there now.
    pub fn wait(&self, cost: u32, payer: Payer, now: Instant) -> Option<Instant> {
        self.missing(&self.account_now(now), cost, payer, now)
    }

    /// Spends this number of credits.
    ///
    /// # Errors
    /// If there are fewer: with the moment at which there may be enough.
    pub fn take(&self, cost: u32, payer: Payer, now: Instant) -> Result<(), Instant> {
        let mut spent = self.account_now(now);
        if let Some(until) = self.missing(&spent, cost, payer, now) {
            return Err(until);
        }
        self.spend(&mut spent, cost, payer);
        Ok(())
    }

    /// Spends the credits of something that has happened, as a notification has, whether there are
    /// enough or not.
    pub fn take_anyway(&self, method: &str, now: Instant) {
        let cost = self.cost(method);
        self.spend(&mut self.account_now(now), cost, Payer::Own);
    }

    /// Whether no credit is left until the end of the day.
    pub fn is_day_spent(&self, now: Instant) -> bool {
        self.left(now).today == Some(0)
    }

    /// The credits that are left.
    pub fn left(&self, now: Instant) -> Left {
        let spent = *self.account_now(now);
        let at_once = self.budget.rate.map(|rate| {
            let left = (u128::from(rate.burst.get()) * PARTS).saturating_sub(spent.parts) / PARTS;
            u64::try_from(left).unwrap_or(u64::MAX)
        });
        Left { at_once, today: self.budget.per_day.map(|per_day| per_day.get().saturating_sub(spent.today)) }
    }

    /// The credits that are spent at `now`: some have come back since the last look.
    fn account_now(&self, now: Instant) -> MutexGuard<'_, Spent> {
        let mut spent = self.account.lock();
        if let Some(Rate { per_second, .. }) = self.budget.rate {
            let passed = now.saturating_duration_since(spent.at).as_nanos();
            spent.parts = spent.parts.saturating_sub(passed * u128::from(per_second.get()));
            spent.at = spent.at.max(now);
        }
        let day = (self.account.wall)() / DAY;
        // A clock that is set back gives nothing back.
        if day > spent.day {
            (spent.day, spent.today) = (day, 0);
        }
        spent
    }

    fn missing(&self, spent: &Spent, cost: u32, payer: Payer, now: Instant) -> Option<Instant> {
        if cost == 0 {
            return None;
        }
        let of_the_rate = self.budget.rate.and_then(|Rate { per_second, burst }| {
            let burst = u64::from(burst.get());
            let most = match payer {
                // The dearest call goes when nothing else was spent.
                Payer::Call => (burst - burst / KEPT).max(cost.into()),
                Payer::Own => burst,
            };
            let over = (spent.parts + u128::from(cost) * PARTS).saturating_sub(u128::from(most) * PARTS);
            let nanos = u64::try_from(over.div_ceil(per_second.get().into())).unwrap_or(u64::MAX);
            (over > 0).then(|| now + Duration::from_nanos(nanos))
        });
        let is_over_today =
            self.budget.per_day.is_some_and(|per_day| spent.today.saturating_add(cost.into()) > per_day.get());
        let of_the_day = is_over_today.then(|| now + Duration::from_secs(DAY - (self.account.wall)() % DAY));
        of_the_rate.max(of_the_day)
    }

    fn spend(&self, spent: &mut Spent, cost: u32, payer: Payer) {
        if self.budget.rate.is_some() {
            spent.parts += u128::from(cost) * PARTS;
        }
        spent.today = spent.today.saturating_add(cost.into());
        self.metrics.spent(payer, cost);
    }
}

#[cfg(test)]
mod tests;
