//! The permission to act for a shard's transactions, asked before each effect: a sending, an
//! attempt at a delivery, a write of a row.
//!
//! Rule: an effect begins only while the replica owns the shard and is a member of the cluster
//! beyond doubt, by its own clock, looked at in that moment. Reason: others take the shard over
//! when they have not heard of the replica for `failover_timeout`, which is later; so no two
//! replicas begin effects of one shard at the same time, also where one of them stood still for a
//! while.
//!
//! Without `[cluster]` a proxy owns all shards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{sync::Notify, time::sleep};

use super::shard::{SHARDS, Shard, ShardSet, bit};
use crate::{cluster::Cluster, domain::fleet::Epoch};

/// From one look whether an effect may begin to the next, and how many there are.
const LOOK: Duration = Duration::from_millis(50);
const MOST_LOOKS: u32 = 10;

/// The shards that this replica owns. Clones are the same.
#[derive(Clone)]
pub struct Ownership(Option<Arc<Owned>>);

/// The shards of a replica among others.
struct Owned {
    /// The shards that are this replica's, also those that it takes up or gives away just now.
    held: AtomicU64,
    /// Those of which effects may begin.
    active: AtomicU64,
    /// Whether it is known whose the other shards are. While the bucket is read anew it is not, and
    /// nothing is put away.
    is_settled: AtomicBool,
    /// The effects under way.
    under_way: [AtomicU32; SHARDS as usize],
    /// Notified when the last effect of a shard that is active no more has ended.
    ended: Notify,
    /// The life in which the shards were taken.
    life: ArcSwapOption<(Cluster, Epoch)>,
}

/// Whether an effect may begin.
#[derive(Debug)]
#[must_use]
pub enum May {
    /// Now; the effect holds this until its end.
    Begin(Permit),
    /// Perhaps in a moment.
    Later,
    /// The shard is another replica's. This replica can put its part of the effect away; that
    /// ends with this.
    Never(Permit),
}

/// An effect under way. The shard is given away when there is none.
#[derive(Debug)]
pub struct Permit(Option<(Arc<Owned>, Shard)>);

impl std::fmt::Debug for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owned").finish_non_exhaustive()
    }
}

impl Ownership {
    /// The ownership of a proxy that is alone: all shards are its own.
    pub fn alone() -> Self {
        Self(None)
    }

    /// The ownership of a replica among others, without a shard yet.
    pub fn of_replica() -> Self {
        Self(Some(Arc::new(Owned {
            held: AtomicU64::new(0),
            active: AtomicU64::new(0),
            is_settled: AtomicBool::new(false),
            under_way: [const { AtomicU32::new(0) }; SHARDS as usize],
            ended: Notify::new(),
            life: ArcSwapOption::empty(),
        })))
    }

    /// Waits a moment for the permission to begin an effect, where a shard is just taken up.
    pub async fn begin(&self, shard: Option<Shard>) -> Option<Permit> {
        for _ in 0..MOST_LOOKS {
            match self.may(shard) {
                May::Begin(permit) => return Some(permit),
                May::Later => sleep(LOOK).await,
                May::Never(_) => return None,
            }
        }
        None
    }

    /// Whether an effect of the shard may begin; without a shard, it is this replica's own affair.
    pub fn may(&self, shard: Option<Shard>) -> May {
        let (Some(owned), Some(shard)) = (&self.0, shard) else { return May::Begin(Permit(None)) };
        // Counted before the looks, so that no effect begins behind the back of one who waits for
        // the end of all.
        owned.under_way[shard.index()].fetch_add(1, SeqCst);
        let permit = Permit(Some((owned.clone(), shard)));
        if owned.held.load(SeqCst) & bit(shard) == 0 {
            return if owned.is_settled.load(SeqCst) { May::Never(permit) } else { May::Later };
        }
        let is_active = owned.active.load(SeqCst) & bit(shard) != 0;
        if is_active && owned.is_sure() { May::Begin(permit) } else { May::Later }
    }

    /// Whether a row of the shard may be written: also while the shard is taken up or given away.
    pub(super) fn may_write(&self, shard: Shard) -> May {
        match (self.may(Some(shard)), &self.0) {
            (May::Later, Some(owned)) if owned.held.load(SeqCst) & bit(shard) != 0 && owned.is_sure() => {
                May::Begin(Permit(None))
            }
            (may, _) => may,
        }
    }

    /// The shards that are this replica's, also those that it takes up or gives away just now.
    pub(super) fn held(&self) -> ShardSet {
        self.0.as_ref().map_or(ShardSet::ALL, |owned| ShardSet::of_bits(owned.held.load(SeqCst)))
    }

    /// Whether this replica is a member beyond doubt, in the life in which it took its shards.
    pub(super) fn is_sure(&self) -> bool {
        self.0.as_ref().is_none_or(|owned| owned.is_sure())
    }

    /// The shards of which effects may begin, as far as the lease allows.
    pub fn active(&self) -> ShardSet {
        self.0.as_ref().map_or(ShardSet::ALL, |owned| ShardSet::of_bits(owned.active.load(SeqCst)))
    }

    /// The life in which shards are taken from now on.
    pub(super) fn lives(&self, life: Option<(Cluster, Epoch)>) {
        if let Some(owned) = &self.0 {
            owned.life.store(life.map(Arc::new));
        }
    }

    /// Whether it is known whose the shards are.
    pub(super) fn settled(&self, is_settled: bool) {
        if let Some(owned) = &self.0 {
            owned.is_settled.store(is_settled, SeqCst);
        }
    }

    /// The shard is this replica's; no effect begins yet.
    pub(super) fn hold(&self, shard: Shard) {
        if let Some(owned) = &self.0 {
            owned.held.fetch_or(bit(shard), SeqCst);
        }
    }

    /// Effects of the shard may begin.
    pub(super) fn activate(&self, shard: Shard) {
        if let Some(owned) = &self.0 {
            debug_assert!(owned.held.load(SeqCst) & bit(shard) != 0, "an active shard is held");
            owned.active.fetch_or(bit(shard), SeqCst);
        }
    }

    /// No effect of the shard begins any more.
    pub(super) fn stop(&self, shard: Shard) {
        if let Some(owned) = &self.0 {
            owned.active.fetch_and(!bit(shard), SeqCst);
        }
    }

    /// The shard is not this replica's any more.
    pub(super) fn let_go(&self, shard: Shard) {
        if let Some(owned) = &self.0 {
            owned.active.fetch_and(!bit(shard), SeqCst);
            owned.held.fetch_and(!bit(shard), SeqCst);
        }
    }

    /// Waits until no effect of the shard is under way. Only for shards that are not active.
    pub(super) async fn quiet(&self, shard: Shard) {
        let Some(owned) = &self.0 else { return };
        loop {
            let ended = owned.ended.notified();
            if owned.under_way[shard.index()].load(SeqCst) == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Owned {
    fn is_sure(&self) -> bool {
        let life = self.life.load();
        life.as_ref().is_some_and(|life| life.0.is_sure_of(life.1))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some((owned, shard)) = self.0.take() else { return };
        let last = owned.under_way[shard.index()].fetch_sub(1, SeqCst) == 1;
        if last && owned.active.load(SeqCst) & bit(shard) == 0 {
            owned.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn shard(number: u8) -> Option<Shard> {
        Shard::numbered(number)
    }

    #[test]
    fn a_proxy_that_is_alone_may_do_all() {
        let ownership = Ownership::alone();
        assert!(matches!(ownership.may(shard(3)), May::Begin(_)));
        assert_eq!(ownership.active(), ShardSet::ALL);
        assert!(ownership.is_sure());
    }

    /// R22: without a life in the cluster no effect begins, whatever shards are held.
    #[test]
    fn no_effect_begins_without_a_life() {
        let ownership = Ownership::of_replica();
        assert!(matches!(ownership.may(shard(3)), May::Later), "nobody knows whose it is");
        ownership.settled(true);
        assert!(matches!(ownership.may(shard(3)), May::Never(_)));
        assert!(matches!(ownership.may(None), May::Begin(_)), "its own affairs go on");
        ownership.hold(shard(3).unwrap());
        ownership.activate(shard(3).unwrap());
        assert!(matches!(ownership.may(shard(3)), May::Later));
        assert!(!ownership.is_sure());
    }

    /// R22: a shard is given away when the last effect has ended.
    #[test]
    fn a_shard_is_quiet_when_all_effects_have_ended() {
        let (ownership, of) = (Ownership::of_replica(), shard(9).unwrap());
        ownership.settled(true);
        let May::Never(first) = ownership.may(Some(of)) else { panic!("not its own") };
        let May::Never(second) = ownership.may(Some(of)) else { panic!("not its own") };
        let mut quiet = Box::pin(ownership.quiet(of));
        assert!((&mut quiet).now_or_never().is_none());
        drop(first);
        assert!((&mut quiet).now_or_never().is_none());
        drop(second);
        assert!((&mut quiet).now_or_never().is_some());
        assert!(ownership.quiet(shard(8).unwrap()).now_or_never().is_some());
    }
}
