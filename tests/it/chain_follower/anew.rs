//! Chains that begin anew, and nodes that only seem to have lost the chain.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_new_chain_is_told_at_once_if_no_node_has_the_old_one() {
    for (execution, away, longest) in [(1, false, 3_000), (1, true, 500), (2, true, 1_500)] {
        let options = Options { execution, ..Options::default() };
        let setup = Setup::new(options, POLLED).await;
        setup.devnet.chain().mine(3);
        sleep(Duration::from_secs(2)).await;
        if away {
            setup.devnet.nodes().for_each(|node| node.set_fault(Fault::Down));
            sleep(Duration::from_secs(5)).await;
        }
        setup.devnet.chain().reorg_to(28, 1).unwrap();
        setup.devnet.nodes().for_each(|node| node.clear_faults());
        until("a node serves", async || {
            let snapshot = setup.pool.snapshot();
            let heads: Vec<_> = snapshot.nodes.iter().filter_map(|node| node.head.as_ref()).collect();
            snapshot.active.is_some() && heads.iter().all(|head| head.number == 6)
        })
        .await;
        let start = Instant::now();
        until("the new chain is told", async || setup.chain().last().is_some_and(|block| block.number == 6)).await;
        assert!(start.elapsed() <= Duration::from_millis(longest), "{execution} {away}: {:?}", start.elapsed());
        setup.devnet.chain().mine(2);
        sleep(Duration::from_secs(2)).await;
        setup.is_whole(6, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_node_back_has_not_lost_the_chain_others_may_have() {
    let setup = Setup::new(Options::default(), POLLED).await;
    let first = setup.devnet.chain().mine(3).number - 2;
    sleep(Duration::from_secs(2)).await;
    setup.devnet.nodes().for_each(|node| node.set_fault(Fault::Down));
    sleep(Duration::from_secs(5)).await;
    setup.devnet.el(0).clear_faults();
    setup.devnet.el(0).set_fault(Fault::lag(20));
    sleep(Duration::from_secs(8)).await;
    assert_eq!(setup.pool.snapshot().active, Some(NodeId(0)));
    setup.devnet.el(1).clear_faults();
    setup.devnet.chain().mine(1);
    sleep(Duration::from_secs(8)).await;
    setup.is_whole(first, 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_syncs_after_a_restart_is_no_chain_that_was_reset() {
    let setup = Setup::new(Options { execution: 1, ..Options::default() }, POLLED).await;
    let node = setup.devnet.el(0);
    let first = setup.devnet.chain().mine(3).number - 2;
    sleep(Duration::from_secs(2)).await;
    node.set_fault(Fault::Down);
    sleep(Duration::from_secs(5)).await;
    node.clear_faults();
    node.set_fault(Fault::Syncing);
    for behind in [20, 10, 3] {
        node.set_fault(Fault::lag(behind));
        sleep(Duration::from_secs(8)).await;
        assert_eq!(setup.pool.snapshot().active, Some(NodeId(0)), "there is no other");
    }
    node.clear_faults();
    setup.devnet.chain().mine(1);
    sleep(Duration::from_secs(8)).await;
    setup.is_whole(first, 0);
    assert!(!setup.shows("steadfast_gaps_skipped_total"));
}
