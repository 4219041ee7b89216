//! What a WebSocket client was told, held against the promises as it comes.
//!
//! A client trusts nobody: each message must be the one answer to something that it asked, or a notification of a subscription that it
//! has; headers must connect; logs must follow one another, and be taken back newest first.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, value::RawValue};
use tokio::time::Instant;

use crate::network::{Canonical, Fact, Kind, chosen};

/// A request or an answer, its parts as they were written.
pub type Parts<'a> = BTreeMap<String, &'a RawValue>;

/// Number, hash.
pub type Head = (u64, String);
/// Number and hash of the block, place of the log in it.
pub type Place = (u64, String, u64);

/// All that one client was told.
#[derive(Default)]
pub struct Heard {
    /// Every message, with the moment when it came.
    pub frames: Vec<(Instant, String)>,
    /// What was asked and is not answered, oldest first.
    asked: Vec<Asked>,
    pub answers: Vec<Answer>,
    /// Subscriptions that the client has, by their ids.
    pub subscriptions: BTreeMap<String, Subscription>,
    /// How many subscriptions it was given.
    pub given: usize,
    /// The promise that was broken first.
    broken: Option<String>,
    /// Close code and reason, or how else the connection ended.
    pub over: Option<Result<(u16, String), String>>,
}

struct Asked {
    id: String,
    method: String,
    params: Value,
    at: Instant,
}

/// What one request was answered.
pub struct Answer {
    pub method: String,
    pub params: Value,
    pub text: String,
    pub took: Duration,
}

/// What was told on one subscription.
pub struct Subscription {
    /// The params that asked for it.
    pub params: Value,
    /// The network's height when it was answered: from the next block on, nothing may be missing.
    pub since: u64,
    /// When something was told last.
    pub last: Option<Instant>,
    pub told: Told,
}

pub enum Told {
    Heads(Heads),
    Logs(Logs),
    Other(Vec<Value>),
}

#[derive(Default)]
pub struct Heads {
    /// Numbers of all headers as they came.
    pub all: Vec<u64>,
    /// The chain as told.
    pub chain: Vec<Head>,
    /// Headers that connect to nothing that was told before: the last number before, the number after.
    pub gaps: Vec<(u64, u64)>,
}

#[derive(Default)]
pub struct Logs {
    /// The contract that is asked for, or all.
    address: Option<String>,
    /// The logs that stand.
    stand: Vec<Place>,
    pub removed: Vec<Place>,
}

/// The parts of a request or of an answer, or of each of a batch.
pub fn parts(text: &str) -> Result<Vec<Parts<'_>>, String> {
    match text.starts_with('[') {
        true => serde_json::from_str(text),
        false => serde_json::from_str(text).map(|one| vec![one]),
    }
    .map_err(|error| format!("{error}: {text}"))
}

fn value(part: Option<&&RawValue>) -> Value {
    part.map_or(Value::Null, |part| serde_json::from_str(part.get()).unwrap())
}

impl Heard {
    /// Notes what is about to be asked.
    pub fn ask(&mut self, text: &str) {
        for request in parts(text).unwrap() {
            let (method, params) = (value(request.get("method")), value(request.get("params")));
            let method = method.as_str().unwrap_or_default().to_owned();
            if let Some(id) = request.get("id") {
                self.asked.push(Asked { id: id.get().to_owned(), method, params, at: Instant::now() });
            }
        }
    }

    /// Counts the time of a request from now on.
    pub fn sent(&mut self, text: &str) {
        for request in parts(text).unwrap() {
            let asked = self.asked.iter_mut().find(|asked| request.get("id").is_some_and(|id| id.get() == asked.id));
            asked.into_iter().for_each(|asked| asked.at = Instant::now());
        }
    }

    /// How many requests are not answered.
    pub fn owed(&self) -> usize {
        self.asked.len()
    }

    /// Takes a message; `tip` is the network's height. Answers the hash of a block if the message is its header.
    pub fn hear(&mut self, text: &str, tip: u64) -> Option<String> {
        self.frames.push((Instant::now(), text.to_owned()));
        let heard = parts(text).and_then(|parts| match parts.first().is_some_and(|part| part.contains_key("method")) {
            true => self.notified(&parts),
            false => parts.iter().try_for_each(|answer| self.answered(answer, tip)).map(|()| None),
        });
        heard.unwrap_or_else(|why| {
            self.breaks(why);
            None
        })
    }

    /// Notes that a promise was broken.
    pub fn breaks(&mut self, why: String) {
        self.broken.get_or_insert(why);
    }

    /// Fails if a promise was broken.
    pub fn holds(&self, name: &str) {
        if let Some(why) = &self.broken {
            let tail = &self.frames[self.frames.len().saturating_sub(8)..];
            let tail: Vec<String> = tail.iter().map(|(_, text)| text.chars().take(250).collect()).collect();
            panic!("{name}: {why}\nthe last that came:\n{}", tail.join("\n"));
        }
    }

    fn answered(&mut self, answer: &Parts<'_>, tip: u64) -> Result<(), String> {
        let text = || serde_json::to_string(answer).unwrap();
        let id = answer.get("id").ok_or_else(|| format!("neither an answer nor a notification: {}", text()))?;
        let place = self.asked.iter().position(|asked| asked.id == id.get());
        let place = place.ok_or_else(|| format!("an answer that was not asked for: {}", text()))?;
        let Asked { method, params, at, .. } = self.asked.remove(place);
        if answer.contains_key("result") == answer.contains_key("error") {
            return Err(format!("neither a result nor an error: {}", text()));
        }
        let result = value(answer.get("result"));
        match method.as_str() {
            "eth_subscribe" if answer.contains_key("result") => {
                let id = result.as_str().unwrap_or_default().to_owned();
                let digits = id.strip_prefix("0x").unwrap_or_default();
                if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return Err(format!("no subscription id: {}", text()));
                }
                self.given += 1;
                let subscription =
                    Subscription { since: tip, last: None, told: Told::of(&params), params: params.clone() };
                if self.subscriptions.insert(id, subscription).is_some() {
                    return Err(format!("a subscription id was given twice: {}", text()));
                }
            }
            // Whatever is told of it from now on is a fault.
            "eth_unsubscribe" if result == true => {
                _ = self.subscriptions.remove(params[0].as_str().unwrap_or_default())
            }
            "eth_getBlockByHash" if result["hash"] != params[0] => {
                return Err(format!("{} was told of and cannot be fetched: {}", params[0], text()));
            }
            _ => {}
        }
        self.answers.push(Answer { method, params, text: text(), took: at.elapsed() });
        Ok(())
    }

    fn notified(&mut self, parts: &[Parts<'_>]) -> Result<Option<String>, String> {
        let [note] = parts else { return Err("a batch of notifications".to_owned()) };
        if value(note.get("method")) != "eth_subscription" || note.contains_key("id") {
            return Err("neither an answer nor a notification".to_owned());
        }
        let params = value(note.get("params"));
        let id = params["subscription"].as_str().unwrap_or_default();
        let known = self.subscriptions.get_mut(id);
        let subscription = known.ok_or_else(|| format!("a notification of {id:?}, which is none of ours"))?;
        subscription.last = Some(Instant::now());
        let result = &params["result"];
        match &mut subscription.told {
            Told::Heads(heads) => heads.tell(result).map(Some),
            Told::Logs(logs) => logs.tell(result).map(|()| None),
            Told::Other(told) => {
                told.push(result.clone());
                Ok(None)
            }
        }
    }
}

impl Told {
    fn of(params: &Value) -> Self {
        match params[0].as_str() {
            Some("newHeads") => Self::Heads(Heads::default()),
            Some("logs") => {
                let address = params[1]["address"].as_str().map(str::to_owned);
                Self::Logs(Logs { address, ..Logs::default() })
            }
            _ => Self::Other(Vec::new()),
        }
    }
}

impl Heads {
    fn tell(&mut self, header: &Value) -> Result<String, String> {
        let (number, hash) = (quantity(&header["number"])?, text(&header["hash"])?);
        let parent = text(&header["parentHash"])?;
        // An anvil tells of a whole block where other nodes tell of its header.
        let is_block = header.get("transactions").is_some() && chosen() != Kind::Anvil;
        if is_block || header.get("logsBloom").is_none() {
            return Err(format!("no header: {header}"));
        }
        self.all.push(number);
        let (first, last) = (self.chain.first().map(|head| head.0), self.chain.last().cloned());
        if last.as_ref().is_some_and(|(_, last)| *last == hash) {
            return Err(format!("header {number} {hash} twice in a row"));
        }
        if let Some(at) = self.chain.iter().rposition(|(_, hash)| *hash == parent) {
            if self.chain[at].0 + 1 != number {
                return Err(format!("header {number} on one of height {}", self.chain[at].0));
            }
            self.chain.truncate(at + 1);
        } else {
            // On nothing that was told: what came before it must all be replaced, or blocks are missing.
            if first.is_some_and(|first| number > first) {
                self.gaps.push((last.expect("there is a first").0, number));
            }
            self.chain.clear();
        }
        self.chain.push((number, hash.clone()));
        Ok(hash)
    }
}

impl Logs {
    fn tell(&mut self, log: &Value) -> Result<(), String> {
        let place = (quantity(&log["blockNumber"])?, text(&log["blockHash"])?, quantity(&log["logIndex"])?);
        if self.address.as_ref().is_some_and(|address| log["address"] != **address) {
            return Err(format!("a log of another contract: {log}"));
        }
        if log["removed"] == true {
            let newest = self.stand.pop();
            if newest.as_ref() != Some(&place) {
                return Err(format!("{place:?} is taken back, and {newest:?} is the newest that stood"));
            }
            self.removed.push(place);
            return Ok(());
        }
        let follows = self.stand.last().is_none_or(|last| match last.1 == place.1 {
            true => last.2 < place.2,
            false => last.0 < place.0,
        });
        if !follows {
            return Err(format!("{place:?} after {:?}", self.stand.last()));
        }
        self.stand.push(place);
        Ok(())
    }

    fn of(&self, block: &Fact) -> Vec<Place> {
        let logs = block.logs.iter().filter(|(address, _)| self.address.as_ref().is_none_or(|ours| ours == address));
        logs.map(|(_, place)| (block.number, block.hash.clone(), *place)).collect()
    }
}

impl Subscription {
    /// The first block that was told of, or that must be.
    pub fn from(&self) -> u64 {
        let first = match &self.told {
            Told::Heads(heads) => heads.chain.first().map(|head| head.0),
            Told::Logs(logs) => logs.stand.first().map(|log| log.0),
            Told::Other(_) => None,
        };
        first.unwrap_or(u64::MAX).min(self.since + 1)
    }

    /// Whether what was told adds up to the chain as it stands, without a gap. The facts must begin
    /// no later than [`Subscription::from`].
    pub fn adds_up(&self, now: &Canonical) -> Result<(), String> {
        match &self.told {
            Told::Heads(heads) => {
                let first = heads.chain.first().map_or(u64::MAX, |head| head.0);
                if !heads.gaps.is_empty() || first > self.since + 1 {
                    return Err(format!("gaps {:?}, told from {first} on, subscribed at {}", heads.gaps, self.since));
                }
                let expected: Vec<Head> =
                    now.since(first).iter().map(|block| (block.number, block.hash.clone())).collect();
                differ("heads", &heads.chain, &expected)
            }
            Told::Logs(logs) => {
                let expected: Vec<Place> = now.since(self.since + 1).iter().flat_map(|block| logs.of(block)).collect();
                // Of blocks before that, some may come.
                let (older, ours): (Vec<Place>, _) = logs.stand.iter().cloned().partition(|log| log.0 <= self.since);
                let strange =
                    older.iter().find(|log| now.block(log.0).is_none_or(|block| !logs.of(block).contains(log)));
                match strange {
                    Some(log) => Err(format!("{log:?} does not stand")),
                    None if expected.is_empty() => Err("there are no logs to be told of".to_owned()),
                    None => differ("logs", &ours, &expected),
                }
            }
            Told::Other(_) => Ok(()),
        }
    }
}

fn differ<T: PartialEq + std::fmt::Debug>(what: &str, told: &[T], expected: &[T]) -> Result<(), String> {
    if told == expected {
        return Ok(());
    }
    let same = told.iter().zip(expected).take_while(|(told, expected)| told == expected).count();
    let (told, expected) = (&told[same..], &expected[same..]);
    Err(format!("{what}: after {same} that are right, {told:?} in place of {expected:?}"))
}

fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("no text: {value}"))
}

fn quantity(value: &Value) -> Result<u64, String> {
    let text = text(value)?;
    u64::from_str_radix(text.trim_start_matches("0x"), 16).map_err(|_| format!("no quantity: {text}"))
}
