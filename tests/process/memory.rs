//! Little memory: `ulimit -v`.

use crate::{
    common::{origin::Origin, proxy::nodes},
    harness::Process,
};

/// 512 MiB of address space, in the shell's unit.
const HALF_A_GIGABYTE: &str = "ulimit -v 524288";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_gigabyte_of_address_space_is_enough() {
    let node = Origin::echo().await;
    let mut process = Process::start(&nodes([node.url()]), &[HALF_A_GIGABYTE]).await;
    let watch = process.watch();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let seen = watch.end().await;
    assert!(process.is_alive() && seen.calls > 1, "{seen:?}");
    assert!(seen.failed.is_empty() && seen.unseen.is_empty(), "{seen:?}");
}
