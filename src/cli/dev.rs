//! `steadfast dev`: the newcomer's first minute.

use std::{
    fs::{self, DirBuilder},
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread::available_parallelism,
    time::Duration,
};

use alloy_primitives::Address;
use clap::Args;

use super::{block_on, conclude, log, run};
use crate::{
    app::{App, World},
    config::{self, Config, Log},
    devnet::{Devnet, Fault, Kind, Options, ValidatorClient},
    door::admin::Faults,
    net::{Endpoint, descriptors, system::System},
};

/// Validators that the pretend network has.
const VALIDATORS: u64 = 64;

/// A transaction for the pretend network, signed with the first key that development tools know,
/// and the transaction's hash.
const SIGNED: [&str; 2] = [
    "0x02f868820539808084773594008252089470997970c51812dc3a010c7d01b50e0d17dc79c80180c080a07ccd7a55ea1adf3e8bc204981871\
     030b0cda658d0eecb5bf2e110030fff55c8ba0522cfd9865108045f771b22b776647edad0a2e76b1b06ab8b9c6a9b75833097f",
    "0x6718bce86bdbcc27c503f1249c40bfd5f54a5640f2b39dbf4ae656f64149829a",
];

/// The pretend network, with the proxy in front.
#[derive(Args)]
pub(super) struct Dev {
    /// Execution nodes, and as many consensus nodes; the first of each is the primary.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: u8,
    /// Time between blocks: seconds, such as 2 or 0.5, or a duration, such as 500ms.
    #[arg(long, value_name = "TIME", default_value = "2", value_parser = block_time)]
    block_time: Duration,
    /// Where clients connect.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8545")]
    listen: SocketAddr,
    /// Where metrics, status and switches are.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9545")]
    admin_listen: SocketAddr,
    /// Where nodes are killed and brought back.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9191")]
    control: SocketAddr,
    /// Validators of a client that is before the proxy, out of sixty-four. Their earnings are at
    /// the control server's /validators.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(0..=64))]
    validators: u64,
}

/// The shortest time between blocks, and the longest.
const BLOCK_TIMES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// Reads seconds, which may have a fraction, or a duration as in the settings.
fn block_time(text: &str) -> Result<Duration, String> {
    let is_number = text.starts_with(|c: char| c.is_ascii_digit()) && text.ends_with(|c: char| c.is_ascii_digit());
    let seconds = text.parse::<f64>().ok().filter(|_| is_number && !text.contains(['e', 'E']));
    let time = match seconds {
        // Longer times than this are refused below.
        Some(seconds) => Duration::from_millis((seconds * 1000.0).round().min(1e9) as u64),
        None => config::duration(text).map_err(|_| {
            "must be seconds, such as 2 or 0.5, or a whole number with a unit, such as 500ms".to_owned()
        })?,
    };
    if !BLOCK_TIMES.contains(&time) {
        return Err("must be from 100ms to an hour".to_owned());
    }
    Ok(time)
}

/// The blocks before the start: ten or a few more, so that they take whole seconds, as genesis is
/// at a whole second.
fn initial_blocks(block_time: Duration) -> u64 {
    let is_whole = |blocks: &u64| (block_time.as_millis() * u128::from(*blocks)).is_multiple_of(1000);
    (10..=1000).find(is_whole).unwrap_or(1000)
}

pub(super) fn run(dev: &Dev) -> ExitCode {
    let (_flush, _) = log::start_log(&Log::default());
    let served = block_on(async {
        let mut signals = run::Signals::listen()?;
        let options = Options {
            execution: usize::from(dev.nodes),
            consensus: usize::from(dev.nodes),
            block_time: Some(dev.block_time),
            initial_blocks: initial_blocks(dev.block_time),
            listen_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            control: Some(dev.control),
            ..Options::default()
        };
        let devnet = Devnet::start(options, Arc::new(System)).await.map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::AddrInUse => "\nanother `steadfast dev` may run here: see `steadfast status`",
                _ => "",
            };
            format!("the pretend network cannot listen: {error} (its control server: {}, --control){hint}", dev.control)
        })?;
        // An image on a file system that takes no writes has no place for a folder.
        let kept = Folder::new()
            .inspect_err(|error| tracing::warn!(%error, "no folder for an outbox can be made: there is no outbox"))
            .ok();
        let settings = settings(dev, &devnet, kept.as_ref());
        let config = Config::parse(&settings, &|_| None).map_err(|errors| errors.to_string())?;
        let threads = available_parallelism().map_or(1, |threads| threads.get());
        let world = World { descriptors: descriptors::raise(), faults: Some(faults(&devnet)), ..World::real(threads) };
        let app = App::start(config, world, None).await.map_err(|error| error.to_string())?;
        introduce(&devnet, &app, kept.is_some(), dev.validators);
        let validators = (dev.validators > 0).then(|| devnet.validate(validators(dev, &app)));
        signals.until_told(&app).await;
        let code = signals.see_down(app).await;
        drop((validators, devnet, kept));
        Ok::<_, String>(code)
    });
    conclude(served)
}

/// Names for the folder of the outbox that are tried.
const NAMES: usize = 100;

/// A folder for the outbox, which goes with the pretend chain: no other has these transactions.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        // In a container the process has the same number after each start, and a process that was
        // killed left its folder.
        let names = (0..NAMES).map(|count| format!("steadfast-dev-{}-{count}", std::process::id()));
        let mut taken = None;
        for path in names.map(|name| std::env::temp_dir().join(name)) {
            // A name that somebody else has taken is not used.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(taken.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let folder = self.0.display();
        match fs::remove_dir_all(&self.0) {
            Ok(()) => {
                tracing::info!(%folder, "the outbox's folder is removed: its transactions go with the pretend chain")
            }
            Err(error) => tracing::warn!(%folder, %error, "the outbox's folder is left"),
        }
    }
}

/// The proxy's settings as a file would have them: the first node of each kind is the primary, the
/// others are backups.
fn settings(dev: &Dev, devnet: &Devnet, kept: Option<&Folder>) -> String {
    let mut text = format!("listen = \"{}\"\n[admin]\nlisten = \"{}\"\n", dev.listen, dev.admin_listen);
    // Nothing here is worth anything, and wallets and pages that are being written have an origin.
    text.push_str("[cors]\norigins = [\"*\"]\n[ws]\nallow_origins = [\"*\"]\n");
    if let Some(Folder(path)) = kept {
        // Single quotes of TOML take a path as the path is.
        text.push_str(&format!("[outbox]\ndir = '{}'\nconfirmations = 3\n", path.display()));
    }
    for node in devnet.nodes() {
        let (name, url) = (node.name(), node.http_url());
        let tier = if name.ends_with("-1") { "primary" } else { "backup" };
        let (layer, ws) = match node.kind() {
            Kind::Execution => ("el", format!("ws = \"{}\"\n", node.ws_url())),
            Kind::Consensus => ("cl", String::new()),
        };
        text.push_str(&format!("[[{layer}.{tier}]]\nname = \"{name}\"\nhttp = \"{url}\"\n{ws}"));
    }
    text
}

/// The faults that the dashboard switches, of those that the control server knows.
fn faults(devnet: &Devnet) -> Faults {
    let nodes: Vec<_> = devnet.nodes().cloned().collect();
    Arc::new(move |name, fault| {
        let Some(node) = nodes.iter().find(|node| node.name() == name) else { return false };
        match fault {
            "up" => node.clear_faults(),
            "down" => node.set_fault(Fault::Down),
            "hang" => node.set_fault(Fault::Hang),
            "lag" => node.set_fault(Fault::Lag { blocks: 10 }),
            "syncing" => node.set_fault(Fault::Syncing),
            _ => return false,
        }
        true
    })
}

/// A validator client that has the proxy for its beacon node.
fn validators(dev: &Dev, app: &App) -> ValidatorClient {
    let addr = app.addr();
    let host = if addr.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { addr.ip() };
    ValidatorClient {
        name: "pretend-validator".to_owned(),
        beacon: Endpoint::Tcp { host: host.to_string().into(), port: addr.port() },
        dial: Arc::new(System),
        // A step of 37 spreads the validators over the slots in which they vote and propose.
        validators: (0..dev.validators).map(|index| index * 37 % VALIDATORS).collect(),
        keeps_connections: true,
        fee_recipient: Address::repeat_byte(0x11),
    }
}

fn introduce(devnet: &Devnet, app: &App, keeps: bool, validators: u64) {
    let control = devnet.control_addr().map_or_else(String::new, |addr| format!("http://{addr}"));
    let chain = devnet.chain().id();
    let (addr, admin) = (app.addr(), app.admin_addr());
    let program = std::env::args().next().unwrap_or_else(|| "steadfast".to_owned());
    let execution = devnet.nodes().filter(|node| node.kind() == Kind::Execution);
    let nodes = execution.map(|node| node.name()).collect::<Vec<_>>().join(" ");
    println!(
        "A pretend network (chain id {chain}) with the proxy in front of it.

  point a wallet or a script at   http://{addr}   ws://{addr}
  see what the proxy sees         http://{admin}/ in a browser, or
                                  {program} status --watch --admin http://{admin}
                                  http://{admin}/status   http://{admin}/metrics

  call                            curl -s http://{addr} -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"eth_blockNumber\"}}'
  follow the beacon chain         curl -N 'http://{addr}/eth/v1/events?topics=head'
  kill the primary                curl -X POST {control}/nodes/el-1/down
  and back again                  curl -X POST {control}/nodes/el-1/up
                                  (`up` ends every fault)
  other faults                    hang  mute  lag/10  late/400  branch/3  freeze  lie/1000000  slow/500  syncing  wrong-chain/5  failing  quota  gzip  forgetful  max-connections/8
                                  of consensus nodes: el-offline  optimistic  restart  pruned/16  few-blobs  hang-over/METHOD  slow-over/500
  mine, leave out, reorganise     curl -X POST {control}/mine/3     curl -X POST {control}/miss/2     curl -X POST {control}/reorg/2
"
    );
    if keeps {
        let [raw, hash] = SIGNED;
        println!(
            "The proxy keeps a transaction on disk, and sends the transaction until a block has it:

  let every node refuse           for n in {nodes}; do curl -X POST {control}/nodes/$n/refuse/eth_sendRawTransaction; done
  send                            curl -s http://{addr} -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"eth_sendRawTransaction\",\"params\":[\"{raw}\"]}}'
  let every node forget           for n in {nodes}; do curl -X POST {control}/nodes/$n/up; curl -X POST {control}/nodes/$n/forgetful; done
  let every node be well          for n in {nodes}; do curl -X POST {control}/nodes/$n/up; done
  reorganise out                  curl -X POST {control}/reorg-out/{hash}
  its life so far                 {program} outbox show {hash} --admin http://{admin}
"
        );
    }
    if validators > 0 {
        println!(
            "A validator client with {validators} of {VALIDATORS} validators votes through the proxy, and proposes their blocks.

  what they earn                  curl -s {control}/validators
  kill their node                 curl -X POST {control}/nodes/cl-1/down
  bring it back                   curl -X POST {control}/nodes/cl-1/up
"
        );
    }
    println!("The nodes themselves:");
    for node in devnet.nodes() {
        println!("  {:<8} {}", node.name(), node.http_url());
    }
    println!("\nIt runs. Ctrl-C ends it.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_time_is_seconds_or_a_duration() {
        for (text, millis) in [
            ("2", 2000),
            ("0.5", 500),
            ("1.25", 1250),
            ("0.1", 100),
            ("3600", 3_600_000),
            ("500ms", 500),
            ("2s", 2000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(block_time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "x", ".5", "5.", "-1", "+1", "1e3", "inf", "NaN", "0.5s", "1.5ms", "1 2", "٣"] {
            let why = block_time(text).expect_err(text);
            assert!(why.contains("such as 2 or 0.5") && why.contains("500ms"), "{text}: {why}");
        }
        for text in ["0", "0.0", "0.05", "99ms", "3601", "2h", "1000000000000000000000"] {
            assert_eq!(block_time(text), Err("must be from 100ms to an hour".to_owned()), "{text}");
        }
    }

    #[test]
    fn genesis_is_at_a_whole_second() {
        for (millis, blocks) in [(2000, 10), (500, 10), (100, 10), (250, 12), (1250, 12), (333, 1000)] {
            assert_eq!(initial_blocks(Duration::from_millis(millis)), blocks, "{millis} ms");
        }
    }
}
