//! Replicas whose networks are of other chains.

use super::*;

/// A23: the first replica notes the chain of each network in the bucket, and one with another chain
/// takes no part.
#[test]
fn a_replica_of_another_chain_takes_no_part() {
    run_simulated(71, async {
        let mut fleet = Fleet::start("ack = \"disk\"\n").await;
        let observer = fleet.bucket.client("observer");
        let chains = observer.list(&Prefix::of(&["chain"]).unwrap()).await.unwrap().entries;
        let [chain] = &chains[..] else { panic!("{chains:?}") };
        assert_eq!(chain.value, "1337");
        fleet.crash(2).await;
        fleet.until_shared().await;
        // For a moment the others do not look at it, so r2 alone is of another chain.
        let revision = observer.compare_and_set(&chain.key, chain.revision, "5".into(), None).await.unwrap();
        fleet.launch(2).await;
        sleep(Duration::from_secs(15)).await;
        assert_eq!(fleet.shards().await[2], 0);
        let answer = fleet.send(2, 1, 0).await;
        assert_eq!(answer["error"]["data"]["reason"], "outbox_unwritable", "{answer}");
        let expected = "is 1337 here, and 5 at the other replicas";
        assert!(answer["error"]["message"].as_str().unwrap().contains(expected), "{answer}");
        observer.compare_and_set(&chain.key, revision, "1337".into(), None).await.unwrap();
        fleet.until_shared().await;
        let hash = fleet.sent(2, 1, 0).await;
        fleet.until_mempools(hash).await;
    });
}
