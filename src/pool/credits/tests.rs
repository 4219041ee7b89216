use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;
use crate::{
    config::Config,
    metrics::{Metrics, NodeLabels},
};

const NOON: u64 = 20_000 * DAY + DAY / 2;

/// A wall clock that a test sets.
fn wall() -> (Wall, Arc<AtomicU64>) {
    let seconds = Arc::new(AtomicU64::new(NOON));
    let clock = seconds.clone();
    (Arc::new(move || clock.load(Relaxed)), seconds)
}

fn credits(budget: &str, account: &Arc<Account>) -> Credits {
    let text = format!("[[el.primary]]\nhttp = \"http://a:1\"\nbudget = {budget}\n");
    let budget = Config::parse(&text, &|_| None).unwrap().networks[0].el[0].budget.clone().unwrap();
    let labels = NodeLabels { network: "default", layer: "el", node: "a" };
    Credits::new(budget, account.clone(), Metrics::new().credits(labels))
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn credits_come_back_one_by_one() {
    let account = Account::new(wall().0, 0);
    let (credits, start) = (credits("{ per_second = 50, burst = 4 }", &account), Instant::now());
    for _ in 0..4 {
        credits.take(1, Payer::Call, start).unwrap();
    }
    assert_eq!(credits.take(1, Payer::Call, start), Err(start + millis(20)));
    assert_eq!(credits.take(3, Payer::Call, start), Err(start + millis(60)));
    assert_eq!(credits.wait(1, Payer::Call, start + millis(19)), Some(start + millis(20)));
    credits.take(1, Payer::Call, start + millis(20)).unwrap();
    assert_eq!(credits.left(start + millis(65)).at_once, Some(2));
    assert_eq!(credits.left(start + millis(1000)).at_once, Some(4));
}

#[test]
fn calls_leave_something_for_questions_of_our_own() {
    let account = Account::new(wall().0, 0);
    let (credits, now) =
        (credits(r#"{ per_second = 1, burst = 16, costs = { dear = 16 } }"#, &account), Instant::now());
    for _ in 0..14 {
        credits.take(1, Payer::Call, now).unwrap();
    }
    credits.take(1, Payer::Call, now).unwrap_err();
    credits.take(2, Payer::Own, now).unwrap();
    credits.take(1, Payer::Own, now).unwrap_err();
    // Also a call that costs all there is gets its turn.
    credits.take(credits.cost("dear"), Payer::Call, now + Duration::from_secs(16)).unwrap();
}

#[test]
fn the_credits_of_a_day_come_back_at_midnight_and_never_before() {
    let (wall, seconds) = wall();
    let account = Account::new(wall, 0);
    let (credits, now) = (credits("{ per_day = 3 }", &account), Instant::now());
    for left in [2, 1, 0] {
        credits.take(1, Payer::Call, now).unwrap();
        assert_eq!(credits.left(now), Left { at_once: None, today: Some(left) });
    }
    assert!(credits.is_day_spent(now));
    assert_eq!(credits.take(1, Payer::Call, now), Err(now + Duration::from_secs(DAY / 2)));
    assert_eq!(credits.take(0, Payer::Call, now), Ok(()));
    for (at, is_there) in [(NOON - DAY, false), (NOON + DAY / 2 - 1, false), (NOON + DAY / 2, true), (NOON, false)] {
        seconds.store(at, Relaxed);
        let before = credits.left(now).today == Some(3);
        assert_eq!(before, is_there, "{at}");
        if is_there {
            (0..3).for_each(|_| credits.take(1, Payer::Call, now).unwrap());
        }
    }
}

#[test]
fn another_budget_of_the_account_counts_what_was_spent() {
    let account = Account::new(wall().0, 0);
    let now = Instant::now();
    let before = credits("{ per_second = 1, burst = 4, per_day = 9 }", &account);
    (0..4).for_each(|_| before.take(1, Payer::Call, now).unwrap());
    let after = credits("{ per_second = 2, burst = 5, per_day = 6 }", &account);
    assert_eq!(after.left(now), Left { at_once: Some(1), today: Some(2) });
    after.take(1, Payer::Call, now).unwrap();
    before.take(1, Payer::Call, now).unwrap_err();
}

#[test]
fn a_notification_is_paid_though_nothing_is_left() {
    let account = Account::new(wall().0, 0);
    let (credits, now) = (credits("{ per_second = 1, burst = 1 }", &account), Instant::now());
    (0..3).for_each(|_| credits.take_anyway("eth_subscription", now));
    assert_eq!(credits.take(1, Payer::Call, now), Err(now + Duration::from_secs(3)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_span_of_time_has_more_than_the_budget(
        per_second in 1u32..200,
        burst in 1u32..300,
        asked in proptest::collection::vec((0u64..400, 1u32..40, any::<bool>()), 1..200),
    ) {
        let account = Account::new(wall().0, 0);
        let credits = credits(&format!("{{ per_second = {per_second}, burst = {burst} }}"), &account);
        let start = Instant::now();
        let (mut now, mut taken) = (start, Vec::new());
        for (pause, cost, own) in asked {
            now += millis(pause);
            let payer = if own { Payer::Own } else { Payer::Call };
            let cost = cost.min(burst);
            match credits.take(cost, payer, now) {
                Ok(()) => taken.push((now, u64::from(cost))),
                Err(until) => {
                    prop_assert!(until > now);
                    // The moment is neither too late nor too early.
                    let before = until - Duration::from_nanos(1);
                    prop_assert_eq!(credits.wait(cost, payer, before), Some(until));
                    prop_assert_eq!(credits.wait(cost, payer, until), None);
                    now = until;
                }
            }
        }
        for first in 0..taken.len() {
            let mut sum = 0;
            for (at, cost) in &taken[first..] {
                sum += cost;
                let span = (*at - taken[first].0).as_nanos();
                let most = u128::from(burst) * PARTS + u128::from(per_second) * span;
                prop_assert!(u128::from(sum) * PARTS <= most, "{} in {} ns", sum, span);
            }
        }
    }
}
