//! Rules of single tenants (U27).

use alloy_primitives::{Address, B256, U256};

use super::{super::*, bench::*};
use crate::outbox::record::StateName;

/// Rules for tenant `acme`; for all others those of [`terms`].
fn with(acme: TenantTerms) -> Terms {
    Terms { tenants: [("acme".parse().unwrap(), acme)].into(), ..terms() }
}

fn of(bench: &Bench, tenant: &str, name: u8) -> TxId {
    TxId { tenant: tenant.parse().unwrap(), ..bench.id(name) }
}

fn state(bench: &Bench, tenant: &str, name: u8) -> &'static str {
    bench.disk.records[&of(bench, tenant, name)].state.name().as_str()
}

/// Two tenants send a transaction each, of senders 1 and 2.
fn accepted(bench: &mut Bench) {
    bench.accept_of("acme", 1, 1, 0);
    bench.accept_of("other", 2, 2, 0);
}

fn states(bench: &Bench) -> [&'static str; 2] {
    [state(bench, "acme", 1), state(bench, "other", 2)]
}

/// The tenants and hashes of what is sent.
fn sent_of(effects: &[Effect]) -> Vec<(String, u8)> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send { id, .. } => Some((id.tenant.to_string(), id.hash[0])),
        _ => None,
    });
    sent.collect()
}

fn taken_of(bench: &mut Bench, tenant: &str, name: u8) -> Vec<Effect> {
    let (id, send) = (of(bench, tenant, name), bench.sending(name));
    let mut effects = bench.input(Input::Heard { id: id.clone(), send, node: "a".into(), word: Word::Taken });
    effects.extend(bench.input(Input::SendDone { id, send, is_whole: true }));
    effects
}

#[test]
fn another_tenants_transaction_of_a_nonce_is_sent_too() {
    let mut bench = Bench::new();
    bench.accept_of("a", 1, 1, 0);
    taken_of(&mut bench, "a", 1);
    // A replacement: the same sender and nonce, and another hash.
    assert_eq!(sent_of(&bench.accept_of("b", 2, 1, 0)), [("b".to_owned(), 2)]);
    taken_of(&mut bench, "b", 2);
    assert_eq!((state(&bench, "a", 1), state(&bench, "b", 2)), ("sent", "sent"));
}

#[test]
fn a_copy_of_another_tenants_transaction_is_sent_at_once() {
    let mut bench = Bench::new();
    for (name, nonce) in [(1, 0), (2, 1)] {
        bench.accept_of("a", name, 1, nonce);
        taken_of(&mut bench, "a", name);
    }
    // Its own earlier nonce waits for a word, and holds it up no more than the other tenant's.
    bench.blocks(&[], &[(block(101, 0), &[])]);
    bench.accept_of("c", 3, 1, 0);
    assert_eq!(sent_of(&bench.accept_of("b", 2, 1, 1)), [("b".to_owned(), 2)]);
    let answered = taken_of(&mut bench, "b", 2);
    assert!(answered.iter().any(|effect| matches!(effect, Effect::Answer { answer: Ok(_), .. })), "{answered:?}");
    assert_eq!(state(&bench, "b", 2), "sent");
}

#[test]
fn a_copy_that_came_first_is_sent_when_the_other_is_taken() {
    let mut bench = Bench::with(Terms { in_flight: 1, ..terms() });
    // The place of tenant b is taken.
    bench.accept_of("b", 9, 9, 0);
    bench.accept_of("a", 1, 1, 0);
    assert_eq!(sent_of(&bench.accept_of("b", 1, 1, 0)), []);
    taken_of(&mut bench, "a", 1);
    assert_eq!(sent_of(&taken_of(&mut bench, "b", 9)), [("b".to_owned(), 1)]);
}

#[test]
fn a_tenants_confirmations_hold_for_that_tenant_only() {
    for (own, after) in [
        (1, [["confirmed", "mined"], ["confirmed", "mined"], ["confirmed", "confirmed"], ["confirmed", "confirmed"]]),
        (4, [["mined", "mined"], ["mined", "mined"], ["mined", "confirmed"], ["confirmed", "confirmed"]]),
    ] {
        let mut bench = Bench::with(with(TenantTerms { confirmations: Some(own), ..TenantTerms::default() }));
        accepted(&mut bench);
        bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0), (2, 2, 0)])]);
        let seen = [0, 1, 1, 1].map(|blocks| {
            bench.pass(blocks);
            states(&bench)
        });
        assert_eq!(seen, after, "{own} confirmations");
    }
}

#[test]
fn a_final_block_confirms_whatever_the_tenants_rule() {
    let mut bench = Bench::with(with(TenantTerms { confirmations: Some(100), ..TenantTerms::default() }));
    accepted(&mut bench);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0), (2, 2, 0)])]);
    bench.final_blocks(&[], &[(block(102, 0), &[])], Some(101));
    assert_eq!(states(&bench), ["final", "final"]);
}

#[test]
fn a_tenants_transactions_are_asked_for_in_their_own_time() {
    let mut bench = Bench::with(with(TenantTerms { resend_blocks: Some(4), ..TenantTerms::default() }));
    accepted(&mut bench);
    for (tenant, name) in [("acme", 1), ("other", 2)] {
        let (id, send) = (of(&bench, tenant, name), bench.sending(name));
        bench.input(Input::Heard { id: id.clone(), send, node: "a".into(), word: Word::Taken });
        bench.input(Input::SendDone { id, send, is_whole: true });
    }
    let rounds = [1, 1, 1, 1].map(|blocks| asked(&bench.pass(blocks)));
    assert_eq!(rounds, [vec![], vec![2], vec![], vec![1]]);
}

#[test]
fn a_tenants_deadline_holds_for_that_tenant_only() {
    let mut bench = Bench::with(with(TenantTerms { deadline: Some(60_000), ..TenantTerms::default() }));
    accepted(&mut bench);
    bench.pause(59_999);
    assert_eq!(states(&bench), ["accepted", "accepted"]);
    bench.pause(1);
    // No node says anything.
    bench.pause(600_000);
    assert_eq!(states(&bench), ["expired", "accepted"]);
    // A new life has the tenant's own time again.
    bench.accept_of("acme", 1, 1, 0);
    bench.pause(59_999);
    assert_eq!(state(&bench, "acme", 1), "accepted");
    bench.pause(1);
    bench.pause(600_000);
    assert_eq!(state(&bench, "acme", 1), "expired");
}

/// The refusal of one more transaction.
fn refusal(effects: &[Effect]) -> Option<NotDone> {
    effects.iter().find_map(|effect| match effect {
        Effect::Answer { answer: Err(why), .. } => Some(why.clone()),
        _ => None,
    })
}

#[test]
fn a_tenants_own_bound_takes_the_place_of_that_of_each() {
    let bounds = Bounds { tenant_pending: 2, ..terms().bounds };
    for own in [1, 3] {
        let rules = with(TenantTerms { pending: Some(own), ..TenantTerms::default() });
        let mut bench = Bench::with(Terms { bounds, ..rules });
        for (tenant, from, most, key) in
            [("acme", 1, own, "outbox.tenant.max_pending"), ("other", 2, 2, "outbox.max_pending_per_tenant")]
        {
            for count in 0..most {
                let effects = bench.accept_of(tenant, from * 10 + count as u8, from, count as u64);
                assert_eq!(refusal(&effects), None, "{tenant}, {count} of {most}");
            }
            let effects = bench.accept_of(tenant, from * 10 + most as u8, from, most as u64);
            assert_eq!(refusal(&effects), Some(NotDone::Full { key, limit: most }), "{tenant}");
        }
    }
}

#[test]
fn records_that_are_kept_go_by_the_tenants_own_bound() {
    let rules = with(TenantTerms { pending: Some(1), ..TenantTerms::default() });
    let mut bench = Bench::with(rules);
    for name in 1..=22 {
        let tenant = if name % 2 == 0 { "acme" } else { "other" };
        bench.accept_of(tenant, name, name, 0);
        let id = of(&bench, tenant, name);
        assert_eq!(bench.desk.excess(), None, "{name}");
        bench.input(Input::Command { waiter: 77, id, known: None, command: Command::Cancel });
    }
    let excess = bench.desk.excess().map(|excess| (excess.of, excess.records));
    assert_eq!(excess, Some((Some("acme".parse().unwrap()), 1)));
}

#[test]
fn a_reload_changes_the_rules_of_tenants() {
    let mut bench = Bench::new();
    accepted(&mut bench);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0), (2, 2, 0)])]);
    assert_eq!(states(&bench), ["mined", "mined"]);
    let rules = TenantTerms { confirmations: Some(2), pending: Some(1), ..TenantTerms::default() };
    bench.desk.reload(with(rules), Arc::new(WantsAll));
    bench.pass(1);
    assert_eq!(states(&bench), ["confirmed", "mined"]);
    assert!(refusal(&bench.accept_of("acme", 3, 1, 1)).is_some());
}

/// Transactions that wait for more confirmations than the fewest neither stand before others nor
/// keep the desk busy.
#[test]
fn those_that_need_more_confirmations_hold_up_no_other() {
    const OTHERS: usize = 1_200;
    let bounds = Bounds { pending: 5_000, tenant_pending: 5_000, ..terms().bounds };
    let rules = with(TenantTerms { confirmations: Some(1), ..TenantTerms::default() });
    let mut bench = Bench::with(Terms { bounds, ..rules });
    let mut in_block = Vec::new();
    for number in 0..=OTHERS {
        let hash = B256::from(U256::from(number + 1));
        let (tenant, from) = (if number == OTHERS { "acme" } else { "other" }, Address::from_slice(&hash[12..]));
        bench.input(Input::Accept(Box::new(Accept {
            waiter: number as u64 + 1,
            tenant: tenant.parse().unwrap(),
            raw: vec![1; 3].into(),
            tx: transaction(hash, from, 0),
            request_id: None,
            traceparent: None,
            known: None,
            is_other_form: false,
        })));
        in_block.push(InBlock { hash, sender: from, nonce: 0 });
    }
    let last = in_block[OTHERS].hash;
    let added = vec![NewBlock { id: block(101, 0), transactions: in_block }];
    bench.input(Input::Blocks(Box::new(Blocks { added, ..Blocks::default() })));
    let id = TxId { tenant: "acme".parse().unwrap(), network: "main".into(), hash: last };
    assert_eq!(bench.disk.records[&id].state.name(), StateName::Confirmed);
    assert!(bench.desk.next_due().is_none_or(|due| due.0 > bench.now), "nothing is due now");
}
