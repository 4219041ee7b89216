//! Replicas that die, leave, or lose the bucket.

use steadfast::cluster::store::memory::Fault as StoreFault;

use super::*;

/// U21, U33, R17, R18: the owner dies with a transaction that no node has; the next one sends it,
/// and follows it.
#[test]
fn a_transaction_outlives_the_replica_that_sends_it() {
    run_simulated(11, async {
        for place in 0..REPLICAS {
            let mut fleet = Fleet::start("").await;
            fleet.set_faults(Some(&Fault::Down));
            sleep(Duration::from_secs(5)).await;
            let hash = fleet.sent(place, 1, 0).await;
            let owner = fleet.owner(hash).await;
            fleet.crash(owner).await;
            let crashed = Instant::now();
            fleet.set_faults(None);
            fleet.until_mempools(hash).await;
            let took = crashed.elapsed();
            assert!(took > LEASE, "{took:?}: before the lease of the dead one was over");
            assert!(took < FAILOVER + Duration::from_secs(12), "{took:?}");
            fleet.until_shared().await;
            fleet.mine(3).await;
            fleet.until_state(hash, &["confirmed"]).await;
            fleet.until_told(hash, &["tx.accepted", "tx.mined", "tx.confirmed"]).await;
            fleet.each_has_one_id(hash);
            let next = fleet.owner(hash).await;
            assert!(fleet.at(next).metric("steadfast_outbox_shard_moves_total", "reason=\"failed\"").await > 0.0);
            // The dead one comes back, and knows how it went.
            fleet.launch(owner).await;
            fleet.until_shared().await;
            fleet.until_state(hash, &["confirmed"]).await;
            fleet.each_has_one_id(hash);
        }
    });
}

/// U3, U38: an endpoint hears of each transition, whoever dies when; what is told twice has one id.
#[test]
fn an_endpoint_is_told_over_a_change_of_owners() {
    run_simulated(12, async {
        let mut fleet = Fleet::start("").await;
        *fleet.is_down.lock().unwrap() = true;
        let hash = fleet.sent(0, 3, 0).await;
        fleet.until_mempools(hash).await;
        fleet.mine(1).await;
        fleet.until_state(hash, &["mined"]).await;
        // The first owner has told nothing, and the second one dies behind its first word.
        let first = fleet.owner(hash).await;
        fleet.crash(first).await;
        *fleet.is_down.lock().unwrap() = false;
        fleet.until_told(hash, &["tx.accepted", "tx.mined"]).await;
        let second = fleet.owner(hash).await;
        fleet.crash(second).await;
        fleet.until_shared().await;
        fleet.mine(3).await;
        fleet.until_told(hash, &["tx.accepted", "tx.mined", "tx.confirmed"]).await;
        fleet.each_has_one_id(hash);
        assert!(fleet.got.lock().unwrap().iter().all(|got| got.replica != first), "the first one told nothing");
    });
}

/// U22, U43, R3 of the promises: without the bucket no transaction is taken, and calls go on.
#[test]
fn a_replica_without_the_bucket_takes_no_transaction() {
    run_simulated(13, async {
        let fleet = Fleet::start("").await;
        let hash = fleet.sent(0, 1, 0).await;
        fleet.until_state(hash, &["sent", "seen"]).await;
        for (spoil, mend) in
            [(Memory::cut as fn(&Memory, &str), Memory::heal as fn(&Memory, &str)), (Memory::refuse, Memory::heal)]
        {
            spoil(&fleet.bucket, "r0");
            spoil(&fleet.members, "r0");
            sleep(LEASE + Duration::from_secs(1)).await;
            let answer = fleet.send(0, 2, 0).await;
            let (code, reason) = (&answer["error"]["code"], &answer["error"]["data"]["reason"]);
            assert_eq!((code, reason), (&json!(-32005), &json!("outbox_unwritable")), "{answer}");
            assert!(answer["error"]["message"].as_str().unwrap().contains("bucket"), "{answer}");
            let block = fleet.at(0).post(call(4, "eth_blockNumber", "[]")).await.json();
            assert!(block["result"].is_string(), "{block}");
            assert!(["sent", "seen"].contains(&&*fleet.state(0, hash).await));
            let ready = fleet.at(0).admin("/readyz").await.text();
            assert!(ready.contains("bucket"), "{ready}");
            // The others go on, with all shards.
            fleet.sent(1, 2, 0).await;
            mend(&fleet.bucket, "r0");
            mend(&fleet.members, "r0");
            fleet.until_shared().await;
            let start = Instant::now();
            while fleet.send(0, 2, 0).await["result"].is_null() {
                assert!(start.elapsed() < PATIENCE);
                sleep(Duration::from_millis(100)).await;
            }
        }
    });
}

/// U22: a write to the bucket that fails is an error, or unknown, and never a hash.
#[test]
fn no_hash_comes_before_the_bucket_has_the_transaction() {
    run_simulated(14, async {
        let fleet = Fleet::start("").await;
        let (late, lost) = (StoreFault::LateAmbiguous(Duration::from_secs(20)), StoreFault::LostAmbiguous);
        for (key, fault, code) in [(1, StoreFault::Unavailable, -32005), (2, lost, -32002), (3, late, -32002)] {
            fleet.bucket.inject("r0", fault);
            let answer = fleet.send(0, key, 0).await;
            assert_eq!(answer["error"]["code"], code, "{fault:?}: {answer}");
            assert_eq!(fleet.state(0, transaction(key, 0).1).await, "none", "{fault:?}");
        }
        // An answer that was lost is looked for.
        fleet.bucket.inject("r0", StoreFault::AppliedAmbiguous);
        let hash = fleet.sent(0, 4, 0).await;
        fleet.until_mempools(hash).await;
        // A write that came late after all is sent as any other.
        fleet.until_mempools(transaction(3, 0).1).await;
        assert!((0..3).all(|index| !fleet.node(index).mempool().contains(&transaction(1, 0).1)));
    });
}

/// R11, R17: a replica that ends in order gives its shards away, and nobody waits for a timeout.
#[test]
fn a_replica_that_leaves_gives_its_shards_away() {
    run_simulated(15, async {
        let mut fleet = Fleet::start("").await;
        fleet.set_faults(Some(&Fault::Down));
        sleep(Duration::from_secs(5)).await;
        let hash = fleet.sent(0, 1, 0).await;
        let owner = fleet.owner(hash).await;
        let leaving = fleet.replicas[owner].take().unwrap();
        let start = Instant::now();
        leaving.app.shutdown().await;
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        fleet.until_shared().await;
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        let next = fleet.owner(hash).await;
        assert!(fleet.at(next).metric("steadfast_outbox_shard_moves_total", "reason=\"leaving\"").await > 0.0);
        fleet.set_faults(None);
        fleet.until_mempools(hash).await;
        // It comes back, and has its share again without a wait.
        let start = Instant::now();
        fleet.launch(owner).await;
        fleet.until_shared().await;
        assert!(start.elapsed() < LEASE, "{:?}", start.elapsed());
        assert!(fleet.at(owner).metric("steadfast_outbox_shard_moves_total", "reason=\"balancing\"").await > 0.0);
    });
}

/// A24: a bucket that is made anew gets the transactions that the replicas keep.
#[test]
fn a_bucket_that_is_another_gets_what_replicas_keep() {
    run_simulated(16, async {
        let mut fleet = Fleet::start("").await;
        let hash = fleet.sent(0, 1, 0).await;
        fleet.until_state(hash, &["sent", "seen"]).await;
        fleet.bucket.recreate();
        sleep(Duration::from_secs(15)).await;
        fleet.until_shared().await;
        let owner = fleet.owner(hash).await;
        fleet.crash(owner).await;
        fleet.until_shared().await;
        fleet.mine(3).await;
        fleet.until_state(hash, &["confirmed"]).await;
        fleet.until_told(hash, &["tx.accepted", "tx.mined", "tx.confirmed"]).await;
        fleet.each_has_one_id(hash);
    });
}

/// U56: a proxy that was alone brings its transactions with it.
#[test]
fn a_proxy_that_was_alone_brings_its_transactions() {
    run_simulated(17, async {
        let mut fleet = Fleet::prepare("").await;
        fleet.set_faults(Some(&Fault::Down));
        let settings = fleet.settings(0);
        let (alone, _) = settings.split_once("[cluster]").unwrap();
        let nodes = settings.split_once("nats://unused\"\n").unwrap().1;
        fleet.launch_with(0, format!("{alone}{nodes}")).await;
        let hashes = [fleet.sent(0, 1, 0).await, fleet.sent(0, 2, 0).await, fleet.sent(0, 3, 0).await];
        fleet.replicas[0].take().unwrap().app.shutdown().await;
        for place in 0..REPLICAS {
            fleet.launch(place).await;
        }
        fleet.until_shared().await;
        fleet.set_faults(None);
        for hash in hashes {
            fleet.until_mempools(hash).await;
            fleet.until_state(hash, &["sent", "seen"]).await;
            fleet.each_has_one_id(hash);
        }
    });
}

/// A6, A7, R22: a leader of nothing may send: a replica that lost its lease sends nothing, though it
/// has not heard that its shards have moved.
#[test]
fn a_replica_without_a_lease_sends_nothing() {
    run_simulated(18, async {
        let mut fleet = Fleet::start("").await;
        fleet.set_faults(Some(&Fault::Down));
        sleep(Duration::from_secs(5)).await;
        let hash = fleet.sent(0, 1, 0).await;
        let owner = fleet.owner(hash).await;
        fleet.members.cut(&format!("r{owner}"));
        fleet.bucket.cut(&format!("r{owner}"));
        sleep(LEASE + Duration::from_millis(500)).await;
        // The others would take over later than this.
        (0..REPLICAS).filter(|place| *place != owner).for_each(|place| drop(fleet.replicas[place].take()));
        fleet.set_faults(None);
        sleep(Duration::from_secs(60)).await;
        assert!((0..3).all(|index| fleet.node(index).mempool().is_empty()), "sent without a lease");
        fleet.members.heal(&format!("r{owner}"));
        fleet.bucket.heal(&format!("r{owner}"));
        fleet.until_mempools(hash).await;
    });
}

/// Of several replicas the leader alone tells of nodes.
#[test]
fn one_replica_tells_of_a_node() {
    run_simulated(19, async {
        let fleet = Fleet::start("").await;
        let start = Instant::now();
        while fleet.leader().await.is_none() {
            assert!(start.elapsed() < PATIENCE);
            sleep(Duration::from_millis(100)).await;
        }
        fleet.node(1).set_fault(Fault::Down);
        let told = || fleet.got.lock().unwrap().iter().filter(|got| got.kind == "node.down").count();
        while told() == 0 {
            assert!(start.elapsed() < PATIENCE);
            sleep(Duration::from_millis(100)).await;
        }
        sleep(Duration::from_secs(10)).await;
        assert_eq!(told(), 1);
    });
}
