//! How much a desk holds, by tenant and in all, against its bounds.

use std::collections::BTreeMap;

use super::{effect::NotDone, terms::Terms};
use crate::outbox::{record::TenantName, store::Sums};

/// Bytes that a record counts besides its raw transaction: its row and its indices.
const RECORD_BYTES: usize = 2048;

/// What is held of one tenant, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Records whose life is not over.
    pub live: usize,
    /// Length of the raw bytes of these.
    pub live_bytes: usize,
    /// Records that are kept though their life is over.
    pub over: usize,
    /// Length of the raw bytes of these.
    pub over_bytes: usize,
}

impl Sum {
    fn bytes(&self) -> usize {
        self.live_cost() + self.over_bytes + self.over * RECORD_BYTES
    }

    fn live_cost(&self) -> usize {
        self.live_bytes + self.live * RECORD_BYTES
    }

    fn parts(&mut self, is_over: bool) -> (&mut usize, &mut usize) {
        if is_over { (&mut self.over, &mut self.over_bytes) } else { (&mut self.live, &mut self.live_bytes) }
    }
}

impl From<Sums> for Sum {
    fn from(sums: Sums) -> Self {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let Sums { live, live_bytes, over, over_bytes } = sums;
        Self { live: size(live), live_bytes: size(live_bytes), over: size(over), over_bytes: size(over_bytes) }
    }
}

/// The sums.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) all: Sum,
    pub(super) tenants: BTreeMap<TenantName, Sum>,
}

impl Tally {
    /// The sums as the store counted them.
    pub(super) fn new(counted: impl IntoIterator<Item = (TenantName, Sum)>) -> Self {
        let tenants: BTreeMap<_, Sum> = counted.into_iter().collect();
        let mut all = Sum::default();
        for sum in tenants.values() {
            all.live += sum.live;
            all.live_bytes += sum.live_bytes;
            all.over += sum.over;
            all.over_bytes += sum.over_bytes;
        }
        Self { all, tenants }
    }

    pub(super) fn add(&mut self, tenant: &TenantName, length: usize, is_over: bool) {
        let of = self.tenants.entry(tenant.clone()).or_default();
        for sum in [of, &mut self.all] {
            let (count, bytes) = sum.parts(is_over);
            *count += 1;
            *bytes += length;
        }
    }

    pub(super) fn remove(&mut self, tenant: &TenantName, length: usize, is_over: bool) {
        let Some(of) = self.tenants.get_mut(tenant) else { return };
        for sum in [&mut *of, &mut self.all] {
            let (count, bytes) = sum.parts(is_over);
            *count = count.saturating_sub(1);
            *bytes = bytes.saturating_sub(length);
        }
        if *of == Sum::default() {
            self.tenants.remove(tenant);
        }
    }

    /// Whether one more transaction of this length may come. Records of lives that are over do not
    /// stand before it: they make room.
    pub(super) fn room(&self, tenant: &TenantName, length: usize, terms: &Terms) -> Result<(), NotDone> {
        let (bounds, (own_key, own_pending)) = (&terms.bounds, terms.pending_of(tenant));
        let of = self.tenants.get(tenant).copied().unwrap_or_default();
        let cost = length + RECORD_BYTES;
        for (key, used, limit) in [
            ("outbox.max_pending", self.all.live + 1, bounds.pending),
            ("outbox.max_bytes", self.all.live_cost() + cost, bounds.bytes),
            (own_key, of.live + 1, own_pending),
            ("outbox.max_bytes_per_tenant", of.live_cost() + cost, bounds.tenant_bytes),
        ] {
            if used > limit {
                return Err(NotDone::Full { key, limit });
            }
        }
        Ok(())
    }

    /// Whether records of lives that are over must go before their time: all tenants' or one's.
    pub(super) fn excess(&self, terms: &Terms) -> Option<Excess> {
        let bounds = &terms.bounds;
        let beyond = |sum: &Sum, bytes, count: usize| {
            let bytes = sum.bytes().saturating_sub(bytes);
            let records = sum.over.saturating_sub(count.saturating_mul(KEPT_PER_PENDING));
            (sum.over > 0 && (bytes > 0 || records > 0)).then_some((records, bytes))
        };
        if let Some((records, bytes)) = beyond(&self.all, bounds.bytes, bounds.pending) {
            return Some(Excess { of: None, records, bytes });
        }
        self.tenants.iter().find_map(|(tenant, sum)| {
            let (records, bytes) = beyond(sum, bounds.tenant_bytes, terms.pending_of(tenant).1)?;
            Some(Excess { of: Some(tenant.clone()), records, bytes })
        })
    }
}

/// Records of lives that are over may be so many times as many as those that are not.
const KEPT_PER_PENDING: usize = 10;

/// Records of lives that are over and must go before their time, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// Only this tenant's.
    pub of: Option<TenantName>,
    /// So many records at least.
    pub records: usize,
    /// Records of so many bytes at least.
    pub bytes: usize,
}

impl Excess {
    /// Takes note that a record goes whose raw transaction has this length. Whether more must go.
    pub fn shrink(&mut self, length: usize) -> bool {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(length + RECORD_BYTES);
        self.records + self.bytes > 0
    }
}
