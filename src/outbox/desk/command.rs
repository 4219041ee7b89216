//! What operators ask for, and what becomes of old records.

use super::{
    Desk, Endpoints, Source,
    effect::{Answer, Done, Effect, NotDone, To, Turn},
    entry::Key,
    input::{Command, Waiter},
};
use crate::outbox::{
    life::Event,
    record::{Delivery, Millis, Record, TxId},
};

impl Desk {
    pub(super) fn command(
        &mut self,
        turn: &mut Turn,
        waiter: Waiter,
        id: &TxId,
        known: Option<&Record>,
        command: Command,
    ) {
        let key = Key::from(id);
        let known = known.filter(|_| !self.leaving.contains(&key));
        let answer = match self.book.get(&key).map(|entry| &entry.record).or(known).cloned() {
            Some(record) if record.id == *id => self.carry_out(turn, &key, &record, command),
            _ => Err(NotDone::Unknown),
        };
        turn.effects.push(Effect::Answer { waiter, answer });
    }

    fn carry_out(&mut self, turn: &mut Turn, key: &Key, record: &Record, command: Command) -> Answer {
        let state = &record.state;
        let unfit = |why: &str| Err(NotDone::Unfit(format!("the transaction is {}: {why}", state.name().as_str())));
        match command {
            Command::Resend if state.is_pending() => {
                self.book.change(key, |entry| entry.want(To::All));
                Ok(Done::Command)
            }
            Command::Resend => unfit("only one that waits for a block can be sent again"),
            Command::Cancel => match record.after(&Event::Cancelled) {
                Ok(_) => {
                    let source = Source { node: None, reason: Some("an operator cancelled it") };
                    // It was looked at above.
                    _ = self.happen(turn, key, &Event::Cancelled, source);
                    Ok(Done::Command)
                }
                Err(_) => unfit("there is no more sending to be stopped"),
            },
            Command::Drop if state.is_over() => {
                self.forget(turn, vec![(record.id.clone(), record.bytes)]);
                Ok(Done::Command)
            }
            Command::Drop => unfit("cancel it first"),
        }
    }

    /// Drops records of lives that are over.
    pub(super) fn forget(&mut self, turn: &mut Turn, records: Vec<(TxId, usize)>) {
        for (id, bytes) in records {
            let key = Key::from(&id);
            match self.book.get(&key) {
                // It lives again since it was found to be due.
                Some(entry) if !entry.record.state.is_over() => continue,
                Some(_) => _ = self.book.take(&key),
                None => {}
            }
            // A removal that is on its way already counts once.
            if self.leaving.insert(key) {
                self.book.tally.remove(&id.tenant, bytes, true);
                turn.step.remove(id.clone());
                turn.effects.push(Effect::Forgotten { id });
            }
        }
    }
}

/// Deliveries of all events of a record that speak of blocks from height `from` on, once more and
/// with their old ids: for endpoints that lost what they were told. To `endpoint` alone, where one
/// is named. Nothing is written: a dry run counts them, and a replay hands each to
/// [`Step::deliver`](crate::outbox::step::Step::deliver).
pub fn replay(
    endpoints: &dyn Endpoints,
    record: &Record,
    from: u64,
    endpoint: Option<&str>,
    now: Millis,
) -> Vec<Delivery> {
    let (mut deliveries, mut then) = (Vec::new(), record.clone());
    for transition in
        record.history.iter().filter(|transition| transition.block.is_some_and(|block| block.number >= from))
    {
        // The record as the endpoints' rules see it: its newest transition is this one.
        then.seq = transition.seq;
        let made = endpoints.deliveries(&then, transition);
        deliveries.extend(made.into_iter().filter(|delivery| endpoint.is_none_or(|named| delivery.endpoint == named)));
    }
    for delivery in &mut deliveries {
        // Of several replicas, the one whose operator wants the replay makes it.
        (delivery.due, delivery.of) = (now, None);
    }
    deliveries
}
