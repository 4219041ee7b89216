//! A network of two consensus nodes, and what changes there.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use alloy_primitives::Address;
use steadfast::{
    app::App,
    devnet::{Devnet, Fault, Options, Validator, ValidatorClient},
    net::{BoxFuture, BoxIo, Dial, Endpoint},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::script::{Change, What};
use crate::common::{proxy, sim::Net};

/// Unix time at the start.
const START_UNIX: u64 = 1_800_000_000;
pub const SLOT: Duration = Duration::from_secs(12);
/// Slots at the start: three epochs.
pub const PAST: u64 = 24;

/// What the validator client points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    Proxy,
    Node(usize),
    /// Each request goes to the next node, or to the one after that if it cannot be reached.
    RoundRobin,
}

pub struct Setup {
    pub devnet: Devnet,
    pub net: Net,
    pub app: Option<App>,
    pub start: Instant,
}

impl Setup {
    /// Two nodes that see each block after these delays; a proxy in front of them if the client is to be before one.
    pub async fn start(before: Before, delays: [u64; 2]) -> Self {
        let (net, start) = (Net::default(), Instant::now());
        let options = Options {
            execution: 0,
            consensus: 2,
            block_time: Some(SLOT),
            initial_blocks: PAST,
            now_unix: Some(START_UNIX),
            state_bytes: 1000,
            ..Options::default()
        };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let mut settings = String::new();
        for (node, delay) in delays.into_iter().enumerate() {
            if delay > 0 {
                devnet.cl(node).set_fault(Fault::late(delay));
            }
            let tier = if node == 0 { "primary" } else { "backup" };
            let (name, url) = (devnet.cl(node).name().to_owned(), devnet.cl(node).http_url());
            settings += &format!("[[cl.{tier}]]\nname = \"{name}\"\nhttp = \"{url}\"\n");
        }
        let mut app = None;
        if before == Before::Proxy {
            let world = net.world(START_UNIX, start);
            // Each time that they are read, they are others.
            let turn = AtomicUsize::new(1);
            let text = settings.clone();
            let source = move || {
                let attempts = 3 + turn.fetch_add(1, Relaxed) % 2;
                Ok(proxy::config(&format!("[calls]\nattempts = {attempts}\n{text}")))
            };
            app = Some(App::start(proxy::config(&settings), world, Some(Arc::new(source))).await.unwrap());
            sleep(Duration::from_secs(2)).await;
        }
        Self { devnet, net, app, start }
    }

    pub async fn end(self) {
        if let Some(app) = self.app {
            app.shutdown().await;
        }
    }

    pub fn validator(&self, before: Before, validators: &[u64]) -> Validator {
        let port = match before {
            Before::Proxy => self.app.as_ref().unwrap().addr().port(),
            Before::Node(node) => self.devnet.cl(node).addr().port(),
            Before::RoundRobin => 1,
        };
        let ports = [0, 1].map(|node| self.devnet.cl(node).addr().port());
        let dial: Arc<dyn Dial> = match before {
            Before::RoundRobin => Arc::new(RoundRobin { net: self.net.clone(), ports, next: AtomicUsize::new(0) }),
            _ => Arc::new(self.net.clone()),
        };
        self.devnet.validate(ValidatorClient {
            name: "pretend/1".to_owned(),
            beacon: Endpoint::Tcp { host: "127.0.0.1".into(), port },
            dial,
            validators: validators.to_vec(),
            keeps_connections: before != Before::RoundRobin,
            fee_recipient: Address::repeat_byte(0x11),
        })
    }

    /// This far into a slot, counted from the first that begins after the start.
    pub async fn at(&self, slot: u64, into: Duration) {
        sleep_until(self.start + SLOT * u32::try_from(slot + 1).unwrap() + into).await;
    }

    /// A moment before the slot.
    pub async fn shortly_before(&self, slot: u64) {
        sleep_until(self.start + SLOT * u32::try_from(slot + 1).unwrap() - Duration::from_millis(100)).await;
    }

    /// Makes the change when its time has come.
    pub async fn change(&self, Change { at, node, what }: Change) {
        sleep_until(self.start + at).await;
        let node = self.devnet.cl(node);
        match what {
            What::Begins(fault) => node.set_fault(fault),
            What::Ends(name) => node.clear_fault(name),
            What::Restarts => node.restart().await,
            What::Reload => {
                if let Some(app) = &self.app {
                    app.reload().await.unwrap();
                }
            }
        }
    }
}

struct RoundRobin {
    net: Net,
    ports: [u16; 2],
    next: AtomicUsize,
}

impl Dial for RoundRobin {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let first = self.next.fetch_add(1, Relaxed);
            let mut last = Err(io::ErrorKind::ConnectionRefused.into());
            for place in [first, first + 1] {
                match self.net.connect(self.ports[place % 2]).await {
                    Ok(io) => return Ok(Box::new(io) as BoxIo),
                    Err(error) => last = Err(error),
                }
            }
            last
        })
    }
}
