//! The part of the store that the sender needs.

use crate::{
    net::BoxFuture,
    outbox::{
        record::{Delivery, Quarantined, TenantName, WorkId},
        step::Step,
        store::{Due, Kind, Store, StoreError},
    },
};

/// The deliveries of the store.
pub trait Deliveries: Send + Sync + 'static {
    /// Rows of the schedule of deliveries behind `after`, in the order of their time; at most
    /// `limit`.
    fn scheduled(&self, after: Option<&Due>, limit: usize) -> Result<Vec<Due>, StoreError>;

    /// A delivery, if it is there still.
    fn delivery(&self, tenant: &TenantName, work: &WorkId) -> Result<Option<Delivery>, StoreError>;

    /// A delivery that was given up.
    fn quarantined(&self, tenant: &TenantName, work: &WorkId) -> Result<Option<Quarantined>, StoreError>;

    /// Commits a step: the end of this says that the step is on the disk.
    fn commit(&self, step: Step) -> BoxFuture<'_, Result<(), StoreError>>;
}

impl Deliveries for Store {
    fn scheduled(&self, after: Option<&Due>, limit: usize) -> Result<Vec<Due>, StoreError> {
        self.read()?.due_behind(Kind::Delivery, after, limit)
    }

    fn delivery(&self, tenant: &TenantName, work: &WorkId) -> Result<Option<Delivery>, StoreError> {
        self.read()?.delivery(tenant, work)
    }

    fn quarantined(&self, tenant: &TenantName, work: &WorkId) -> Result<Option<Quarantined>, StoreError> {
        self.read()?.quarantined(tenant, work)
    }

    fn commit(&self, step: Step) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(Store::commit(self, step))
    }
}

/// The endpoint of a delivery, which is a part of the delivery's id.
pub(super) fn endpoint_of(work: &WorkId) -> &str {
    work.as_str().rsplit_once('@').map_or("", |(_, endpoint)| endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::record::EventId;

    #[test]
    fn the_id_of_a_delivery_names_its_endpoint() {
        let event = EventId::of_words(&["any"]);
        for name in ["billing", "a.b_c-1"] {
            assert_eq!(endpoint_of(&WorkId::of_delivery(&event, name)), name);
        }
        assert_eq!(endpoint_of(&"main/0x01".into()), "");
    }
}
