//! A pretend validator client: points at one URL, as real clients do, does its validators' duties
//! by the clock and on `head` events, and counts the messages that reached the network.
//!
//! In each slot the client proposes a block if one of its validators is the proposer (that block
//! becomes the chain's block of the slot), attests to the slot's head at the `head` event or after
//! a third of the slot, and aggregates after two thirds. Each request is sent once, so that the
//! count shows the cost of a failure. Signatures are pretend.

mod duties;
mod earned;
mod http;
mod stream;
mod work;

use std::{sync::Arc, time::Duration};

use alloy_primitives::Address;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

pub use self::earned::{Earned, Proposals, Tally};
use self::{duties::Duties, earned::Ledger, http::Http, stream::Heads};
use super::{chain::Chain, hex, view::SLOTS_PER_EPOCH};
use crate::net::{Dial, Endpoint};

/// Between two attempts at a question that must be answered before the duties can begin.
const ASK_PAUSE: Duration = Duration::from_millis(500);

/// The settings of a validator client.
#[derive(Clone)]
pub struct Client {
    /// The client's name on the control server; also its `User-Agent`.
    pub name: String,
    /// The address of the beacon node, or of a proxy in its place.
    pub beacon: Endpoint,
    /// Opens connections to `beacon`.
    pub dial: Arc<dyn Dial>,
    /// The indices of its validators. There are sixty-four.
    pub validators: Vec<u64>,
    /// Whether connections are reused, as by all real clients; if not, each request has its own.
    pub keeps_connections: bool,
    /// The fee recipient of the client's blocks.
    pub fee_recipient: Address,
}

/// A running validator client. Dropping it ends the client.
pub struct Validator {
    earned: watch::Receiver<Earned>,
    _task: JoinSet<()>,
}

impl Validator {
    pub(super) fn start(chain: Arc<Chain>, client: Client) -> Self {
        let (earning, earned) = watch::channel(Earned::default());
        let mut task = JoinSet::new();
        task.spawn(run(chain, client, earning));
        Self { earned, _task: task }
    }

    /// The client's earnings until now. A slot counts when two slots have passed since.
    #[must_use]
    pub fn earned(&self) -> Earned {
        self.earned.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Earned> {
        self.earned.clone()
    }
}

/// State that the tasks of one client share.
struct Shared {
    client: Client,
    chain: Arc<Chain>,
    http: Http,
    times: Times,
    heads: watch::Receiver<Heads>,
    duties: Duties,
    ledger: Ledger,
}

/// When slots begin.
#[derive(Clone, Copy)]
struct Times {
    /// The start of the slot that was under way when the client asked, number `skipped`. Slot 0
    /// cannot be the origin: an `Instant` may not lie before the machine's start.
    zero: Instant,
    /// The number of the slot that begins at `zero`.
    skipped: u64,
    slot: Duration,
}

impl Times {
    fn start_of(&self, slot: u64) -> Instant {
        self.zero + self.slot * u32::try_from(slot.saturating_sub(self.skipped)).unwrap_or(u32::MAX)
    }

    /// The first slot that has not begun.
    fn next(&self) -> u64 {
        let since = Instant::now().saturating_duration_since(self.zero).as_nanos();
        self.skipped + u64::try_from(since / self.slot.as_nanos().max(1)).unwrap_or(0) + 1
    }
}

async fn run(chain: Arc<Chain>, client: Client, earning: watch::Sender<Earned>) {
    let http = Http::new(client.dial.clone(), client.beacon.clone(), &client.name, client.keeps_connections);
    let times = times(&chain, &http).await;
    let (heard, heads) = watch::channel(Heads::default());
    let shared =
        Arc::new(Shared { client, chain, http, times, heads, duties: Duties::default(), ledger: Ledger::new(earning) });
    let mut tasks = JoinSet::new();
    tasks.spawn(stream::listen(shared.clone(), heard));
    tasks.spawn(duties::watch(shared.clone()));
    shared.introduce().await;
    while !shared.learn(shared.times.next()).await {
        sleep(ASK_PAUSE).await;
    }
    let first = shared.times.next();
    for slot in first.. {
        sleep_until(shared.times.start_of(slot)).await;
        tasks.spawn(work::slot(shared.clone(), slot));
        if slot >= first + 2 {
            shared.judge(slot - 2);
        }
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

/// Asks for the time of genesis and the length of a slot until both are answered.
async fn times(chain: &Chain, http: &Http) -> Times {
    loop {
        let genesis = http.get("/eth/v1/beacon/genesis", ASK_PAUSE * 4).await;
        let spec = http.get("/eth/v1/config/spec", ASK_PAUSE * 4).await;
        let number = |answer: &Value, key: &str| answer["data"][key].as_str()?.parse::<u64>().ok();
        let genesis = genesis.and_then(|answer| number(&answer, "genesis_time"));
        // Slots that are no whole seconds long are in milliseconds alone.
        let millis = spec.and_then(|answer| {
            let seconds = || number(&answer, "SECONDS_PER_SLOT").map(|seconds| seconds.saturating_mul(1000));
            number(&answer, "SLOT_DURATION_MS").or_else(seconds)
        });
        if let (Some(genesis), Some(millis)) = (genesis, millis.filter(|millis| *millis > 0)) {
            let slot = Duration::from_millis(millis);
            let now = Duration::from_millis(chain.clock().millis());
            let since = now.saturating_sub(Duration::from_secs(genesis));
            // An instant may not lie before the machine's start, so slots are counted from the
            // present one.
            let skipped = u64::try_from(since.as_nanos() / slot.as_nanos()).unwrap_or(0);
            let into = Duration::from_nanos(u64::try_from(since.as_nanos() % slot.as_nanos()).unwrap_or(0));
            let zero = Instant::now().checked_sub(into).unwrap_or_else(Instant::now);
            return Times { zero, skipped, slot };
        }
        sleep(ASK_PAUSE).await;
    }
}

impl Shared {
    /// Names the fee recipient, and registers with builders: at the start, and once an epoch.
    async fn introduce(&self) {
        let prepared: Value = self.client.validators.iter().map(|index| {
            json!({"validator_index": index.to_string(), "fee_recipient": hex::encode(self.client.fee_recipient)})
        }).collect();
        let registered: Value = self
            .client
            .validators
            .iter()
            .map(|index| {
                json!({"message": {
                "fee_recipient": hex::encode(self.client.fee_recipient), "gas_limit": "60000000",
                "timestamp": "1", "pubkey": super::cl::pubkey(*index),
            }, "signature": "0x00"})
            })
            .collect();
        let limit = self.times.slot;
        tokio::join!(
            self.http.post("/eth/v1/validator/prepare_beacon_proposer", &prepared, limit),
            self.http.post("/eth/v1/validator/register_validator", &registered, limit),
        );
    }

    /// The client's validators that attest at `slot`.
    fn voters(&self, slot: u64) -> impl Iterator<Item = u64> {
        let all = self.client.validators.iter().copied();
        all.filter(move |index| index % SLOTS_PER_EPOCH == slot % SLOTS_PER_EPOCH)
    }
}
