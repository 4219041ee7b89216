//! Rendezvous hashing: each shard has its own order of all replicas.

use crate::{
    cluster::timing::mix,
    domain::fleet::{ReplicaName, ShardKey, View},
};

/// The active replica to which a shard belongs; none where no replica is active.
pub fn place<'a>(shard: &ShardKey, view: &'a View) -> Option<&'a ReplicaName> {
    let active = view.active().map(|(replica, _)| replica);
    active.max_by_key(|replica| (score(shard, replica), *replica))
}

/// The weight of a replica for a shard. All versions must agree, so a change is a new format.
fn score(shard: &ShardKey, replica: &ReplicaName) -> u64 {
    let key = shard.to_string();
    // FNV-1a over the two texts, then mixed: FNV alone leaves neighbours close together.
    let bytes = key.bytes().chain([0]).chain(replica.as_str().bytes());
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}
