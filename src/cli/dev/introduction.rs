//! The text that `steadfast dev` prints: what there is, and what to try.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use super::{VALIDATORS, replicas::Fleet};
use crate::devnet::{Devnet, Kind};

/// Prints a line. A reader that has gone, such as `head`, ends no network.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A transaction for the pretend network, signed with the first key that development tools know,
/// and the transaction's hash.
const SIGNED: [&str; 2] = [
    "0x02f868820539808084773594008252089470997970c51812dc3a010c7d01b50e0d17dc79c80180c080a07ccd7a55ea1adf3e8bc204981871\
     030b0cda658d0eecb5bf2e110030fff55c8ba0522cfd9865108045f771b22b776647edad0a2e76b1b06ab8b9c6a9b75833097f",
    "0x6718bce86bdbcc27c503f1249c40bfd5f54a5640f2b39dbf4ae656f64149829a",
];

/// Prints what there is, and what to try.
pub(super) fn introduce(devnet: &Devnet, fleet: &Fleet, keeps: bool, validators: u64) {
    let control = devnet.control_addr().map_or_else(String::new, |addr| format!("http://{addr}"));
    let chain = devnet.chain().id();
    let first = &fleet.replicas()[0];
    let (addr, admin) = (first.clients(), first.admin());
    let program = std::env::args().next().unwrap_or_else(|| "steadfast".to_owned());
    let execution = devnet.nodes().filter(|node| node.kind() == Kind::Execution);
    let nodes = execution.map(|node| node.name()).collect::<Vec<_>>().join(" ");
    let in_front = match fleet.replicas().len() {
        1 => "the proxy".to_owned(),
        count => format!("{count} replicas of the proxy"),
    };
    say(format_args!(
        "A pretend network (chain id {chain}) with {in_front} in front of it.

  point a wallet or a script at   http://{addr}   ws://{addr}
  see what the proxy sees         http://{admin}/ in a browser, or
                                  {program} status --watch --admin http://{admin}
                                  http://{admin}/status   http://{admin}/metrics

  call                            curl -s http://{addr} -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"eth_blockNumber\"}}'
  follow the beacon chain         curl -N 'http://{addr}/eth/v1/events?topics=head'
  kill the primary                curl -X POST {control}/nodes/el-1/down
  and back again                  curl -X POST {control}/nodes/el-1/up
                                  (`up` ends every fault)
  other faults                    hang  mute  lag/10  late/400  branch/3  freeze  lie/1000000  slow/500  syncing  wrong-chain/5  failing  quota  gzip  forgetful  depth/128  max-connections/8
                                  of consensus nodes: el-offline  optimistic  restart  pruned/16  few-blobs  hang-over/METHOD  slow-over/500
  mine, leave out, reorganise     curl -X POST {control}/mine/3     curl -X POST {control}/miss/2     curl -X POST {control}/reorg/2
"
    ));
    if fleet.replicas().len() > 1 {
        introduce_replicas(fleet, &control, &program);
    }
    if keeps {
        let [raw, hash] = SIGNED;
        say(format_args!(
            "The proxy keeps a transaction on disk, and sends the transaction until a block has it:

  let every node refuse           for n in {nodes}; do curl -X POST {control}/nodes/$n/refuse/eth_sendRawTransaction; done
  send                            curl -s http://{addr} -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"eth_sendRawTransaction\",\"params\":[\"{raw}\"]}}'
  let every node forget           for n in {nodes}; do curl -X POST {control}/nodes/$n/up; curl -X POST {control}/nodes/$n/forgetful; done
  let every node be well          for n in {nodes}; do curl -X POST {control}/nodes/$n/up; done
  reorganise out                  curl -X POST {control}/reorg-out/{hash}
  its life so far                 {program} outbox show {hash} --admin http://{admin}
"
        ));
    }
    if validators > 0 {
        say(format_args!(
            "A validator client with {validators} of {VALIDATORS} validators votes through the proxy, and proposes their blocks.

  what they earn                  curl -s {control}/validators
  kill their node                 curl -X POST {control}/nodes/cl-1/down
  bring it back                   curl -X POST {control}/nodes/cl-1/up
"
        ));
    }
    say(format_args!("The nodes themselves:"));
    for node in devnet.nodes() {
        say(format_args!("  {:<8} {}", node.name(), node.http_url()));
    }
    say(format_args!("\nIt runs. Ctrl-C ends it."));
}

/// The replicas, and how one of them is killed.
fn introduce_replicas(fleet: &Fleet, control: &str, program: &str) {
    say(format_args!("The replicas are one cluster, over a store in the memory of this process:\n"));
    for replica in fleet.replicas() {
        say(format_args!("  {:<8} http://{}   admin http://{}", replica.name(), replica.clients(), replica.admin()));
    }
    let [first, second] = [0, 1].map(|place| &fleet.replicas()[place]);
    let (name, admin, addr) = (first.name(), second.admin(), second.clients());
    say(format_args!(
        "
  see the fleet                   {program} status --fleet --admin http://{admin}
  who leads                       curl -s {control}/replicas
  kill a replica, as by SIGKILL   curl -X POST {control}/replicas/{name}/kill
  bring it back                   curl -X POST {control}/replicas/{name}/start

  Kill the replica that leads. Calls at the others go on, as at http://{addr}; another leads within {} s
  (failover_timeout); and the replica that comes back is a member again, and leaves the lead where it is.
",
        fleet.failover().as_secs()
    ));
}
