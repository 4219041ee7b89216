//! The connections kept for questions of our own, and those that our questions leave to calls.

use super::*;

/// A request that waits, with its rank.
type Wait = (Rank, std::pin::Pin<Box<dyn Future<Output = Grant>>>);

fn begin(connections: &Arc<NodeConnections>, rank: Rank) -> Wait {
    let connections = connections.clone();
    (rank, Box::pin(async move { connections.wait(rank, false, None).await }))
}

/// A connection that the request can have at once.
fn take(connections: &Arc<NodeConnections>, rank: Rank) -> Option<Box<Conn>> {
    connections.idle(rank, None).or_else(|| connections.free(rank, None).map(conn))
}

/// Moves the requests that have got a connection from `waits` to `running`.
async fn take_granted(waits: &mut Vec<Wait>, running: &mut Vec<(Rank, Box<Conn>)>) {
    let mut left = Vec::new();
    for (rank, mut wait) in std::mem::take(waits) {
        match granted(&mut wait).await {
            Some(conn) => running.push((rank, conn)),
            None => left.push((rank, wait)),
        }
    }
    *waits = left;
}

#[tokio::test(start_paused = true)]
async fn calls_leave_a_connection_to_questions_of_our_own() {
    let connections = NodeConnections::new(Some(4), 0);
    let take = |rank| take(&connections, rank);
    let mut calls: Vec<_> = std::iter::from_fn(|| take(Rank::Call)).collect();
    assert_eq!(calls.len(), 2);
    let mut third = begin(&connections, Rank::Call).1;
    assert!(granted(&mut third).await.is_none());
    for _ in 0..2 {
        let own = take(Rank::Own).expect("the connection that is kept");
        assert!(take(Rank::Own).is_none(), "the last is for probes");
        let probe = take(Rank::Probe).expect("the last one");
        // Both lie idle from here on, and no call may have them.
        connections.give_back(own);
        connections.give_back(probe);
        assert!(granted(&mut third).await.is_none() && take(Rank::Call).is_none());
        assert_eq!(connections.occupancy().open, 4);
    }
    // A question that uses the kept connection takes nothing from calls.
    let own = take(Rank::Own);
    connections.give_back(calls.pop().unwrap());
    assert!(own.is_some() && granted(&mut third).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn questions_of_our_own_go_first_where_none_is_kept() {
    for bound in [1, 2] {
        let connections = NodeConnections::new(Some(bound), 0);
        let call = take(&connections, Rank::Call).unwrap();
        let [mut second, mut own] = [Rank::Call, Rank::Own].map(|rank| begin(&connections, rank).1);
        assert!(granted(&mut second).await.is_none() && granted(&mut own).await.is_none());
        assert!(connections.keeps_own_waiting());
        connections.give_back(call);
        let answered = granted(&mut own).await.expect("the next turn");
        assert!(granted(&mut second).await.is_none() && !connections.keeps_own_waiting());
        connections.give_back(answered);
        assert!(granted(&mut second).await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn questions_of_our_own_do_not_starve_calls() {
    // Half of the turns on connections that are kept for no rank.
    let cases = [(1, 100), (2, 100), (3, 100), (4, 200), (8, 500)];
    for (work, (bound, half)) in [40, 1500].into_iter().flat_map(|work| cases.map(|case| (work, case))) {
        let work = Duration::from_millis(work);
        let connections = NodeConnections::new(Some(bound), 0);
        // There are more questions and more calls at any time than the node has connections.
        let (mut waits, mut running): (Vec<Wait>, Vec<(Rank, Box<Conn>)>) = Default::default();
        let mut served = [0; 3];
        let end = Instant::now() + work * 200;
        while Instant::now() < end {
            for rank in [Rank::Own, Rank::Call] {
                let count = waits.iter().filter(|(of, _)| *of == rank).count();
                waits.extend((count..10).map(|_| begin(&connections, rank)));
            }
            take_granted(&mut waits, &mut running).await;
            sleep_until(Instant::now() + work).await;
            for (rank, conn) in running.drain(..) {
                served[rank as usize] += 1;
                connections.give_back(conn);
            }
        }
        let [_, own, calls] = served;
        assert!(calls >= half * 8 / 10, "{bound}: {calls} calls beside {own} questions of {work:?}");
        assert!(own >= 80, "{bound}: {own} questions of {work:?} beside {calls} calls");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_beyond_a_bound_make_room() {
    let connections = NodeConnections::new(None, 0);
    let mut conns: Vec<_> = (0..6).map(|_| take(&connections, Rank::Call).unwrap()).collect();
    conns.drain(3..).for_each(|conn| connections.give_back(conn));
    connections.set_bound(Some(4));
    let mut wait = begin(&connections, Rank::Call).1;
    assert!(granted(&mut wait).await.is_none(), "three calls run");
    conns.drain(1..).for_each(|conn| connections.give_back(conn));
    assert!(granted(&mut wait).await.is_some());
    assert!(connections.occupancy().open <= 4);
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_an_end_uses_nothing_that_is_kept() {
    let connections = NodeConnections::new(Some(4), 0);
    let mut stream = take(&connections, Rank::Own).unwrap();
    stream.permit.becomes_link();
    let own = take(&connections, Rank::Own);
    assert!(own.is_some());
    // Of two, the other is for all; and a stream that has ended is no idle connection.
    let connections = NodeConnections::new(Some(2), 0);
    let mut stream = take(&connections, Rank::Own).unwrap();
    let mut call = begin(&connections, Rank::Call).1;
    assert!(granted(&mut call).await.is_none());
    stream.permit.becomes_link();
    assert!(granted(&mut call).await.is_some());
    connections.give_back(stream);
    assert_eq!(connections.occupancy().open, 0);
}

/// At each moment of random runs, no request waits that may have a connection, and no rank has more
/// than its part.
#[tokio::test(start_paused = true)]
async fn no_request_waits_that_may_have_a_connection() {
    const RANKS: [Rank; 3] = [Rank::Probe, Rank::Own, Rank::Call];
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let bound = rng.usize(1..12);
        let connections = NodeConnections::new(Some(bound), 0);
        let (mut waits, mut running): (Vec<Wait>, Vec<(Rank, Box<Conn>)>) = Default::default();
        for step in 0..200 {
            let rank = RANKS[rng.usize(..3)];
            match rng.u32(..8) {
                0..=2 => match take(&connections, rank) {
                    Some(conn) => running.push((rank, conn)),
                    None => waits.push(begin(&connections, rank)),
                },
                3..=5 if !running.is_empty() => {
                    connections.give_back(running.swap_remove(rng.usize(..running.len())).1);
                }
                6 if !running.is_empty() => drop(running.swap_remove(rng.usize(..running.len()))),
                7 if !waits.is_empty() => drop(waits.swap_remove(rng.usize(..waits.len()))),
                _ => _ = timeout(Duration::from_millis(rng.u64(..400)), std::future::pending::<()>()).await,
            }
            take_granted(&mut waits, &mut running).await;
            let state = connections.lock();
            let uses = |rank: Rank| running.iter().filter(|(of, _)| *of == rank).count();
            let [probes, own, calls] = RANKS.map(uses);
            assert!(state.open <= bound && calls <= state.limit(Rank::Call), "{bound} {step}: {calls} calls");
            assert!(calls + own <= state.limit(Rank::Own), "{bound} {step}: {calls} calls, {own} questions");
            assert_eq!(state.in_use, [probes, own]);
            for (rank, _) in &waits {
                assert!(!connections.has_room(&state, *rank, 0), "{bound} {step}: {rank:?} waits in vain");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tried_bound_leaves_open_connections_to_probes() {
    let connections = NodeConnections::new(None, 0);
    let mut calls: Vec<_> = (0..4).map(|_| take(&connections, Rank::Call).unwrap()).collect();
    connections.free(Rank::Call, None).unwrap().refused(true);
    calls.drain(2..).for_each(|conn| connections.give_back(conn));
    let mut third = begin(&connections, Rank::Call).1;
    assert!(granted(&mut third).await.is_none());
    // The bound is raised by one, and the last connection is only opened by a probe; then by two.
    sleep_until(Instant::now() + Duration::from_secs(10)).await;
    assert!(granted(&mut third).await.is_none());
    sleep_until(Instant::now() + Duration::from_secs(1)).await;
    let third = granted(&mut third).await;
    assert_eq!((third.is_some(), connections.occupancy().bound, connections.occupancy().open), (true, Some(7), 5));
    let fourth = take(&connections, Rank::Call);
    assert_eq!((fourth.is_some(), connections.occupancy().open), (true, 6), "calls open new connections");
    let [probe, own] = [Rank::Probe, Rank::Own].map(|rank| connections.idle(rank, None));
    assert!(probe.is_some() && own.is_some());
}
