//! The gate of a request that costs credits, which are taken when the request is about to be
//! written, anew for each connection.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{
    credits::Credits,
    health::{Fault, Trouble},
    node::Node,
};
use crate::{metrics::Payer, net::http::Gate};

/// How long a question of our own waits for credits.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lets a request through `gate` once its credits are taken. The gate is shut if there are not
/// enough.
pub struct Paid<'g, G> {
    gate: &'g mut G,
    credits: Option<&'g Credits>,
    cost: u32,
    payer: Payer,
    is_paid: bool,
    is_refused: bool,
}

impl<'g, G: Gate> Paid<'g, G> {
    /// The gate of a request at `node` that costs this number of credits.
    pub fn new(gate: &'g mut G, node: &'g Node, cost: u32, payer: Payer) -> Self {
        Self { gate, credits: node.credits.as_ref(), cost, payer, is_paid: false, is_refused: false }
    }

    /// Whether there were not enough credits.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }
}

impl<G: Gate> Gate for Paid<'_, G> {
    fn closes(&mut self) {
        self.is_paid = false;
        self.gate.closes();
    }

    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(credits) = self.credits.filter(|_| !self.is_paid && !self.is_refused) {
            self.is_refused = credits.take(self.cost, self.payer, Instant::now()).is_err();
            self.is_paid = !self.is_refused;
        }
        if self.is_refused { Poll::Ready(()) } else { self.gate.poll_open(context) }
    }

    fn is_shut(&self) -> bool {
        self.is_refused || self.gate.is_shut()
    }

    fn written(&mut self) {
        self.gate.written();
    }
}

/// Waits a moment until `node` has credits for a question of our own.
///
/// # Errors
/// If there will be none for longer, which says nothing of the node.
pub async fn afford(node: &Node, method: &str) -> Result<u32, Trouble> {
    let Some(credits) = &node.credits else { return Ok(0) };
    let (cost, patient_until) = (credits.cost(method), Instant::now() + PATIENCE);
    while let Some(until) = credits.wait(cost, Payer::Own, Instant::now()) {
        if until > patient_until {
            return Err(spent());
        }
        sleep_until(until).await;
    }
    Ok(cost)
}

/// The trouble with a node whose budget is spent. As with a node that is full, a question of our
/// own is not asked, which is no evidence against the node.
pub fn spent() -> Trouble {
    Trouble { fault: Fault::Full, text: "the budget of credits is spent".to_owned() }
}
