//! `steadfast dev`: the newcomer's first minute.

mod folder;
mod introduction;
mod replicas;

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    process::ExitCode,
    sync::Arc,
    thread::available_parallelism,
    time::Duration,
};

use alloy_primitives::Address;
use clap::Args;

use self::{folder::Folder, introduction::introduce, replicas::Fleet};
use super::{block_on, conclude, log, run};
use crate::{
    app::World,
    config::{self, Cluster, Config, Log},
    devnet::{Devnet, Fault, Kind, Options, ValidatorClient},
    door::admin::Faults,
    net::{Endpoint, descriptors, system::System},
};

/// Validators that the pretend network has.
const VALIDATORS: u64 = 64;

/// The pretend network, with the proxy in front.
#[derive(Args)]
pub(super) struct Dev {
    /// Execution nodes, and as many consensus nodes; the first of each is the primary.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: u8,
    /// Replicas of the proxy, as one cluster. The first has the given ports, each other the ports
    /// behind those of the replica before.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,
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
        let (mut configs, mut folders) = (Vec::new(), Vec::new());
        for place in 0..dev.replicas {
            // An image on a file system that takes no writes has no place for a folder.
            let folder = Folder::new()
                .inspect_err(|error| tracing::warn!(%error, "no folder for an outbox can be made: there is no outbox"))
                .ok();
            configs.push(config(dev, place, &devnet, folder.as_ref())?);
            folders.push(folder);
        }
        // All replicas share what the process has.
        let replicas = usize::from(dev.replicas);
        let threads = available_parallelism().map_or(1, |threads| (threads.get() / replicas).max(1));
        let descriptors = descriptors::raise().map(|descriptors| descriptors / replicas);
        let world = World { descriptors, faults: Some(faults(&devnet)), ..World::real(threads) };
        let fleet = Arc::new(Fleet::start(configs, world).await?);
        if replicas > 1 {
            devnet.control_replicas(fleet.clone());
        }
        introduce(&devnet, &fleet, folders.iter().all(Option::is_some), dev.validators);
        let validators = (dev.validators > 0).then(|| devnet.validate(validators(dev, &fleet)));
        signals.until_end().await;
        let code = signals.see_down(fleet.take().await).await;
        drop((validators, devnet, folders));
        Ok::<_, String>(code)
    });
    conclude(served)
}

/// The settings of the replica at this place, or of the only proxy.
fn config(dev: &Dev, place: u8, devnet: &Devnet, kept: Option<&Folder>) -> Result<Config, String> {
    let settings = settings([next(dev.listen, place)?, next(dev.admin_listen, place)?], devnet, kept);
    let mut config = Config::parse(&settings, &|_| None).map_err(|errors| errors.to_string())?;
    if dev.replicas > 1 {
        let name = format!("r{}", place + 1).parse().map_err(|wrong| format!("{wrong:?}"))?;
        let cluster = "dev".parse().map_err(|wrong| format!("{wrong:?}"))?;
        // No file can say so: a store in memory is shared by the replicas of one process alone.
        config.cluster = Some(Cluster::in_memory(cluster, name).map_err(|bad| bad.to_string())?);
    }
    Ok(config)
}

/// The address with the port that is `place` ports behind; port 0, which is any free one, stays.
fn next(addr: SocketAddr, place: u8) -> Result<SocketAddr, String> {
    let port = match addr.port() {
        0 => 0,
        port => port.checked_add(place.into()).ok_or_else(|| format!("there is no port {place} behind {addr}"))?,
    };
    Ok(SocketAddr::new(addr.ip(), port))
}

/// The settings of a proxy as a file would have them: the first node of each kind is the primary,
/// the others are backups.
fn settings([listen, admin]: [SocketAddr; 2], devnet: &Devnet, kept: Option<&Folder>) -> String {
    let mut text = format!("listen = \"{listen}\"\n[admin]\nlisten = \"{admin}\"\n");
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

/// A validator client that has the proxy for its beacon node: of several replicas the first that
/// can be reached.
fn validators(dev: &Dev, fleet: &Fleet) -> ValidatorClient {
    let addr = fleet.replicas()[0].clients();
    ValidatorClient {
        name: "pretend-validator".to_owned(),
        beacon: Endpoint::Tcp { host: addr.ip().to_string().into(), port: addr.port() },
        dial: Arc::new(fleet.dial()),
        // A step of 37 spreads the validators over the slots in which they vote and propose.
        validators: (0..dev.validators).map(|index| index * 37 % VALIDATORS).collect(),
        keeps_connections: true,
        fee_recipient: Address::repeat_byte(0x11),
    }
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
    fn a_replica_has_the_ports_behind_the_given_ones() {
        let next = |port: u16, place| next(SocketAddr::from(([127, 0, 0, 1], port)), place);
        assert_eq!(next(8545, 2).unwrap().port(), 8547);
        assert_eq!(next(0, 2).unwrap().port(), 0);
        assert!(next(65_534, 2).unwrap_err().contains("127.0.0.1:65534"));
    }

    #[test]
    fn genesis_is_at_a_whole_second() {
        for (millis, blocks) in [(2000, 10), (500, 10), (100, 10), (250, 12), (1250, 12), (333, 1000)] {
            assert_eq!(initial_blocks(Duration::from_millis(millis)), blocks, "{millis} ms");
        }
    }
}
