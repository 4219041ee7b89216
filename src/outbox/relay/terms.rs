//! The settings of a desk, from those of the outbox and of the network's calls.

use std::time::Duration;

use crate::{
    call::Calls,
    config::TenantRules,
    domain::duration::millis,
    outbox::{
        desk::{self, TenantTerms, Terms},
        handle::Shared,
        record::Network,
    },
};

/// The rules of a tenant, for a desk.
fn tenant_terms(rules: &TenantRules, shared: &Shared) -> TenantTerms {
    let TenantRules { name: _, resend_blocks, confirmations, deadline, max_pending } = rules;
    TenantTerms {
        confirmations: confirmations.map(|blocks| blocks.get().into()),
        resend_blocks: resend_blocks.map(|blocks| blocks.get().into()),
        deadline: deadline.map(millis),
        pending: max_pending.map(|most| most.get().min(shared.most_pending)),
    }
}

/// The settings of a network's desk.
pub(super) fn terms(shared: &Shared, network: &Network, calls: Option<&Calls>) -> Terms {
    let settings = shared.settings.load();
    Terms {
        network: network.clone(),
        ack: settings.ack,
        hold: calls.map_or(0, |calls| millis(hold(calls))),
        confirmations: settings.confirmations.get().into(),
        resend_blocks: settings.resend_blocks.get().into(),
        deadline: millis(settings.deadline),
        keep: millis(settings.keep),
        bounds: desk::Bounds {
            pending: settings.max_pending.get().min(shared.most_pending),
            tenant_pending: settings.max_pending_per_tenant.get().min(shared.most_pending),
            bytes: settings.max_bytes,
            tenant_bytes: settings.max_bytes_per_tenant,
        },
        tenants: settings.tenants.iter().map(|rules| (rules.name.clone(), tenant_terms(rules, shared))).collect(),
        // Without nodes nothing is sent.
        in_flight: calls.map_or(0, |_| settings.max_in_flight_per_tenant.get()),
    }
}

/// How long a client waits for a node's word. The hash is to come before the call ends at its
/// `timeout`.
pub(super) fn hold(calls: &Calls) -> Duration {
    let settings = calls.settings();
    settings.hold.min(settings.timeout - settings.timeout / 10)
}
