//! Accounts by their part of the sum. When another account needs room, the largest gives up all of
//! its bytes, if these are more than the other would have then: so no client keeps the rest out.
//! The evicted bytes are *promised* until they are back. Meanwhile others borrow against them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Relaxed},
        },
    },
};

use super::{Account, account::Duty};

/// The accounts that take from the sum. The lock is taken where an account takes another step, so
/// small calls never do.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// By the bytes taken, and by their numbers; without accounts that have been told to give up
    /// theirs.
    by_price: Mutex<BTreeMap<(usize, u64), Arc<Account>>>,
    /// Bytes that evicted accounts have still to return.
    promised: AtomicUsize,
    /// Bytes lent against promised ones, less those that came back since; 0 again when all are
    /// back.
    borrowed: AtomicUsize,
}

impl Holders {
    /// Bytes that evicted accounts have still to return.
    pub(super) fn promised(&self) -> usize {
        self.promised.load(Acquire)
    }

    /// Lends `more` bytes against promised ones; `false` if the loans would exceed `most`.
    pub(super) fn borrow(&self, more: usize, most: usize) -> bool {
        let lend = |lent: usize| Some(lent.saturating_add(more)).filter(|&lent| lent <= most);
        self.borrowed.fetch_update(Relaxed, Relaxed, lend).is_ok()
    }

    /// Bytes that are lent now.
    #[cfg(test)]
    pub(super) fn borrowed(&self) -> usize {
        self.borrowed.load(Relaxed)
    }

    /// An account takes `price` now, after `before`.
    pub(super) fn change(&self, account: &Arc<Account>, before: usize, price: usize) {
        let mut by_price = self.lock();
        if account.duty() == Duty::None {
            by_price.remove(&(before, account.number));
            if price > 0 {
                by_price.insert((price, account.number), account.clone());
            }
            return;
        }
        let kept =
            if price == 0 { account.promised.swap(0, Relaxed) } else { account.keep(before.saturating_sub(price)) };
        // Bytes that come back repay loans at once: while one account after the other is told to
        // go, there may be no moment without a promise.
        let repay = |lent: usize| Some(lent.saturating_sub(kept));
        let _ = self.borrowed.fetch_update(Relaxed, Relaxed, repay);
        if self.promised.fetch_sub(kept, Relaxed) == kept {
            self.borrowed.store(0, Relaxed);
        }
        if price == 0 {
            account.set_duty(Duty::None);
        }
    }

    /// Tells the largest account to give back its bytes, if these are more than `price`; `false`
    /// when none takes more.
    pub(super) fn evict_largest(&self, price: usize) -> bool {
        let mut by_price = self.lock();
        let Some(most) = by_price.last_entry().filter(|most| most.key().0 > price) else { return false };
        let ((promised, _), account) = most.remove_entry();
        account.promised.store(promised, Relaxed);
        self.promised.fetch_add(promised, Relaxed);
        account.set_duty(Duty::Told);
        account.wake();
        true
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the order.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(usize, u64), Arc<Account>>> {
        self.by_price.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
