//! The calls and subscriptions of one link, as a plain value: inputs in, effects out, no I/O.
//!
//! The rule: subscriptions that are wanted are kept apart from the ids that a connection gave them.
//! The reason: a lost connection takes all ids with it, the link's and the node's, while the wanted
//! subscriptions remain. An example: `newHeads` was granted as `0x1`; after a reconnect the node
//! grants it as `0x7`, and a late notification of `0x1` is dropped.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    MAX_MESSAGE, Shared,
    feed::News,
    message::{self, Frame, Outcome, Response, Unlabelled},
};
use crate::{domain::json::Malformed, metrics::Replay};

/// Notifications with an unknown id that may wait for the answer that grants the id.
const MAX_EARLY: usize = 1024;

/// An effect for the actor to perform.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect<C> {
    /// This is to be written.
    Send(Utf8Bytes),
    /// A call is answered.
    Answer(C, Response),
    /// The answer to a call is too long to be kept.
    TooLong(C),
    /// A wish is granted for the first time.
    Accepted(u64),
    /// The node refused a subscription at the first request, so the subscription is given up.
    Refused(u64, Bytes),
    /// The connection was lost before the first answer to a subscription, which is given up.
    Unanswered(u64),
    /// A wish that was granted has news.
    News(u64, News),
    /// A wish was asked for again.
    Replayed(Replay),
}

/// Why a connection is of no use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// A frame is no JSON-RPC.
    #[error("the node sent what is no JSON-RPC: {0}")]
    Garbage(#[from] Malformed),
    /// More than can be kept.
    #[error("the node sent {MAX_EARLY} notifications before it answered a subscription")]
    Early,
    /// An answer to no call: the node mixes calls up.
    #[error("the node answered a call that it was never sent")]
    Alien,
    /// A message that is too long, and does not tell its call.
    #[error("the node's message is over the limit: more than {MAX_MESSAGE} bytes")]
    TooLong,
    /// A result that may be of one call or another.
    #[error("the node sent a result without an id while several calls were under way")]
    NoId,
    /// A request of the link's own was not answered in time.
    #[error("no answer to a subscription within {0:?}")]
    Unanswered(Duration),
}

/// The state of a link. `C` stands for the caller of a call.
pub(super) struct Table<C> {
    ids: Arc<Shared>,
    /// How long the node has to answer the link's own requests.
    time_limit: Duration,
    /// Calls that wait for an answer, by our id.
    calls: BTreeMap<u64, C>,
    /// Calls on this connection that were forgotten and not answered.
    forgotten: usize,
    /// The link's own questions on this connection that are not answered yet, by id: no caller gets
    /// their answers.
    own: BTreeMap<u64, Own>,
    /// Every subscription that has a reader, on any connection.
    wanted: BTreeMap<u64, Wanted>,
    /// The node's ids on this connection, as the node writes them, and the keys of their
    /// subscriptions.
    live: BTreeMap<Bytes, u64>,
    /// Notifications with ids that are not known yet. Some nodes send the first before they answer.
    early: VecDeque<(Bytes, Bytes)>,
}

/// A request of the link's own.
struct Own {
    due: Instant,
    kind: Kind,
}

enum Kind {
    Subscribe {
        key: u64,
        ask: Arc<Ask>,
    },
    /// Later notifications of this subscription are dropped.
    Unsubscribe {
        subscription: Bytes,
    },
}

struct Wanted {
    ask: Arc<Ask>,
    phase: Phase,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Asked for, and never answered so far.
    First,
    /// Granted once; not requested on this connection, or refused on it.
    Idle,
    /// Granted once, and asked for again.
    Asked,
    /// Granted under this id.
    Live(Bytes),
    /// Ended, because its reader has not taken all waiting news yet.
    Lapsed,
}

/// The wanted subscription: method and params as JSON text.
struct Ask {
    subscribe: String,
    unsubscribe: String,
    params: String,
}

impl<C> Table<C> {
    /// An empty table, before the first connection. Ids of subscriptions are drawn from the same
    /// space as those of calls.
    pub(super) fn new(ids: Arc<Shared>, time_limit: Duration) -> Self {
        Self {
            ids,
            time_limit,
            calls: BTreeMap::new(),
            forgotten: 0,
            own: BTreeMap::new(),
            wanted: BTreeMap::new(),
            live: BTreeMap::new(),
            early: VecDeque::new(),
        }
    }

    /// A call is written.
    pub(super) fn call(&mut self, id: u64, caller: C) {
        self.calls.insert(id, caller);
    }

    /// The caller of a call is gone; the answer, if one comes, is dropped.
    pub(super) fn forget(&mut self, id: u64) {
        self.forgotten += usize::from(self.calls.remove(&id).is_some());
    }

    /// Somebody wants a subscription, on the connection that is open. The params must be UTF-8.
    pub(super) fn want(&mut self, key: u64, method: &str, params: &Bytes, now: Instant) -> Option<Effect<C>> {
        let quoted = |name: &str| serde_json::Value::from(name).to_string();
        let unsubscribe = method.strip_suffix("subscribe").map(|namespace| format!("{namespace}unsubscribe"))?;
        let params = std::str::from_utf8(params).ok()?.to_owned();
        let ask = Arc::new(Ask { subscribe: quoted(method), unsubscribe: quoted(&unsubscribe), params });
        self.wanted.insert(key, Wanted { ask: ask.clone(), phase: Phase::First });
        Some(self.subscribe(key, ask, now))
    }

    /// The reader of a subscription is gone.
    pub(super) fn unwant(&mut self, key: u64, now: Instant) -> Option<Effect<C>> {
        // A subscription that is not granted yet is ended when its answer comes.
        let wish = self.wanted.remove(&key)?;
        self.end(wish, now)
    }

    /// Ends the subscription of a reader that is too slow, until [`Table::resume`].
    pub(super) fn lapse(&mut self, key: u64, now: Instant) -> Option<Effect<C>> {
        let wish = self.wanted.get_mut(&key)?;
        let phase = std::mem::replace(&mut wish.phase, Phase::Lapsed);
        let wish = Wanted { ask: wish.ask.clone(), phase };
        self.end(wish, now)
    }

    /// The reader of a subscription has caught up. `connected`: there is a connection to ask on.
    pub(super) fn resume(&mut self, key: u64, connected: bool, now: Instant) -> Option<Effect<C>> {
        let wish = self.wanted.get_mut(&key).filter(|wish| wish.phase == Phase::Lapsed)?;
        wish.phase = Phase::Idle;
        connected.then(|| self.ask_again(key, now)).flatten()
    }

    /// Handles a new connection: requests the subscriptions again that were granted before.
    pub(super) fn attach(&mut self, now: Instant) -> Vec<Effect<C>> {
        let idle = self.wanted.iter().filter(|(_, wish)| wish.phase == Phase::Idle).map(|(&key, _)| key);
        let idle: Vec<u64> = idle.collect();
        idle.into_iter().filter_map(|key| self.ask_again(key, now)).collect()
    }

    /// Handles a lost connection. The replies of its calls are dropped.
    pub(super) fn detach(&mut self) -> Vec<Effect<C>> {
        self.calls.clear();
        self.forgotten = 0;
        self.own.clear();
        self.live.clear();
        self.early.clear();
        let mut effects = Vec::new();
        self.wanted.retain(|&key, wish| {
            match wish.phase {
                Phase::First => effects.push(Effect::Unanswered(key)),
                Phase::Live(_) => effects.push(Effect::News(key, News::Lost)),
                Phase::Asked => effects.push(Effect::Replayed(Replay::Lost)),
                Phase::Idle | Phase::Lapsed => {}
            }
            let stands = wish.phase != Phase::First;
            if stands && wish.phase != Phase::Lapsed {
                wish.phase = Phase::Idle;
            }
            stands
        });
        effects
    }

    /// When the next answer to a request of the link's own is overdue.
    pub(super) fn due(&self) -> Option<Instant> {
        // All have the same time, and ids count up.
        self.own.first_key_value().map(|(_, own)| own.due)
    }

    /// [`Table::due`] has passed.
    pub(super) fn overdue(&self) -> Broken {
        Broken::Unanswered(self.time_limit)
    }

    /// A frame has come, which is valid UTF-8.
    ///
    /// # Errors
    /// When the connection is of no use any more.
    pub(super) fn frame(&mut self, text: &Bytes, now: Instant, effects: &mut Vec<Effect<C>>) -> Result<(), Broken> {
        match message::read(text)? {
            Frame::Answer(id) => self.answer(text, id, now, effects),
            Frame::Note { subscription, result } => self.note(text.slice(subscription), text.slice(result), effects),
            Frame::Other => match message::labelled(text, || self.only_one()) {
                Unlabelled::Answer(text, id) => self.answer(&text, id, now, effects),
                Unlabelled::Result if !self.is_idle() => Err(Broken::NoId),
                // An error without an id, for example, may belong to none of the calls.
                Unlabelled::Result | Unlabelled::Other => Ok(()),
            },
        }
    }

    /// A frame has come that is too long to be kept; `excerpt` is its beginning and its end.
    ///
    /// # Errors
    /// When that does not tell which call the frame answers: that call would wait in vain.
    pub(super) fn too_long(&mut self, excerpt: &Bytes, effects: &mut Vec<Effect<C>>) -> Result<(), Broken> {
        let Ok(Frame::Answer(place)) = message::read(excerpt) else { return Err(Broken::TooLong) };
        let id = self.given_id(&excerpt[place]).filter(|id| !self.own.contains_key(id)).ok_or(Broken::TooLong)?;
        match self.calls.remove(&id) {
            Some(caller) => effects.push(Effect::TooLong(caller)),
            None => self.forgotten = self.forgotten.saturating_sub(1),
        }
        Ok(())
    }

    /// The id that a node wrote, if the id was given out at some time.
    fn given_id(&self, written: &[u8]) -> Option<u64> {
        let id = std::str::from_utf8(written).ok()?.trim_matches('"').parse().ok()?;
        self.ids.has_given(id).then_some(id)
    }

    fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.own.is_empty()
    }

    /// The id of the only request under way, if there is exactly one.
    fn only_one(&self) -> Option<u64> {
        let mut all = self.calls.keys().chain(self.own.keys());
        let one = all.next().filter(|_| self.forgotten == 0)?;
        all.next().is_none().then_some(*one)
    }

    fn answer(
        &mut self,
        text: &Bytes,
        place: std::ops::Range<usize>,
        now: Instant,
        effects: &mut Vec<Effect<C>>,
    ) -> Result<(), Broken> {
        let Some(id) = self.given_id(&text[place.clone()]) else {
            // If a request is under way, this may be its answer, and the request would wait in
            // vain.
            return if self.is_idle() { Ok(()) } else { Err(Broken::Alien) };
        };
        if let Some(caller) = self.calls.remove(&id) {
            effects.push(Effect::Answer(caller, Response { text: text.clone(), id: place }));
            return Ok(());
        }
        let Some(own) = self.own.remove(&id) else {
            // The answer is to a call that was forgotten.
            self.forgotten = self.forgotten.saturating_sub(1);
            return Ok(());
        };
        let Kind::Subscribe { key, ask } = own.kind else { return Ok(()) };
        match message::outcome(text)? {
            Outcome::Result(subscription) => self.granted(key, ask, subscription, now, effects),
            Outcome::Error(error) => self.refused(key, error, effects),
        }
        if !self.is_asking() {
            self.early.clear();
        }
        Ok(())
    }

    fn granted(&mut self, key: u64, ask: Arc<Ask>, subscription: Bytes, now: Instant, effects: &mut Vec<Effect<C>>) {
        let Some(wish) = self.wanted.get_mut(&key) else {
            // The subscription is not wanted any more.
            effects.push(self.unsubscribe(&ask, subscription, now));
            return;
        };
        if !matches!(subscription.first(), Some(b'"' | b'0'..=b'9')) {
            let error = Bytes::from_static(br#"{"code":-32603,"message":"the node gave no subscription id"}"#);
            return self.refused(key, error, effects);
        }
        match std::mem::replace(&mut wish.phase, Phase::Live(subscription.clone())) {
            Phase::First => effects.push(Effect::Accepted(key)),
            _ => effects.extend([Effect::Replayed(Replay::Accepted), Effect::News(key, News::Back)]),
        }
        if let Some(other) = self.live.insert(subscription.clone(), key) {
            // A node that gives one id twice cannot say whose a notification is.
            if let Some(wish) = self.wanted.get_mut(&other) {
                wish.phase = Phase::Idle;
                effects.push(Effect::News(other, News::Lost));
            }
        }
        self.early.retain(|(id, event)| {
            let is_its = *id == subscription;
            if is_its {
                effects.push(Effect::News(key, News::Event(event.clone())));
            }
            !is_its
        });
    }

    fn refused(&mut self, key: u64, error: Bytes, effects: &mut Vec<Effect<C>>) {
        let Some(wish) = self.wanted.get_mut(&key) else { return };
        if wish.phase == Phase::First {
            self.wanted.remove(&key);
            effects.push(Effect::Refused(key, error));
        } else {
            wish.phase = Phase::Idle;
            effects.extend([Effect::Replayed(Replay::Refused), Effect::News(key, News::Refused(error))]);
        }
    }

    fn note(&mut self, subscription: Bytes, event: Bytes, effects: &mut Vec<Effect<C>>) -> Result<(), Broken> {
        if let Some(&key) = self.live.get(&subscription) {
            effects.push(Effect::News(key, News::Event(event)));
        } else if self.is_asking() && !self.is_ending(&subscription) {
            if self.early.len() == MAX_EARLY {
                return Err(Broken::Early);
            }
            self.early.push_back((subscription, event));
        }
        Ok(())
    }

    /// Whether the answer is outstanding that tells the id of a subscription.
    fn is_asking(&self) -> bool {
        self.own.values().any(|own| matches!(own.kind, Kind::Subscribe { .. }))
    }

    /// Whether the node may not have noticed yet that this subscription is over.
    fn is_ending(&self, id: &Bytes) -> bool {
        self.own.values().any(|own| matches!(&own.kind, Kind::Unsubscribe { subscription } if subscription == id))
    }

    fn ask_again(&mut self, key: u64, now: Instant) -> Option<Effect<C>> {
        let wish = self.wanted.get_mut(&key)?;
        wish.phase = Phase::Asked;
        let ask = wish.ask.clone();
        Some(self.subscribe(key, ask, now))
    }

    fn subscribe(&mut self, key: u64, ask: Arc<Ask>, now: Instant) -> Effect<C> {
        let id = self.ids.next_id();
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{},"params":{}}}"#, ask.subscribe, ask.params);
        self.own.insert(id, Own { due: now + self.time_limit, kind: Kind::Subscribe { key, ask } });
        Effect::Send(text.into())
    }

    /// Unsubscribes at the node, if the subscription is live.
    fn end(&mut self, wish: Wanted, now: Instant) -> Option<Effect<C>> {
        let Phase::Live(subscription) = wish.phase else { return None };
        self.live.remove(&subscription);
        Some(self.unsubscribe(&wish.ask, subscription, now))
    }

    fn unsubscribe(&mut self, ask: &Ask, subscription: Bytes, now: Instant) -> Effect<C> {
        let id = self.ids.next_id();
        let shown = String::from_utf8_lossy(&subscription);
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{},"params":[{shown}]}}"#, ask.unsubscribe);
        self.own.insert(id, Own { due: now + self.time_limit, kind: Kind::Unsubscribe { subscription } });
        Effect::Send(text.into())
    }
}

#[cfg(test)]
mod tests;
