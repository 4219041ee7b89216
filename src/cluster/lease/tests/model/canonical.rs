//! States that behave alike are one: moments count from now, and numbers of the store, writes and
//! reads count by their order only. Without that, no check would come to an end.

use std::hash::{Hash, Hasher};

use super::{
    super::super::{claim::MOST_LOST, *},
    Replica, Request, World,
};
use crate::domain::fleet::{Lease, StoreRevision};

/// Numbers by their order.
#[derive(Default)]
struct Ranks(Vec<u64>);

impl Ranks {
    fn of(mut numbers: Vec<u64>) -> Self {
        numbers.sort_unstable();
        numbers.dedup();
        Self(numbers)
    }

    fn rank(&self, number: u64) -> usize {
        self.0.binary_search(&number).expect("every number was gathered")
    }
}

/// Every number that a world names.
#[derive(Default)]
struct Gathered {
    revisions: Vec<u64>,
    sequences: Vec<u64>,
}

impl Gathered {
    fn lease(&mut self, lease: &Lease) {
        self.revisions.extend(lease.term.map(|term| term.0));
        self.revisions.push(lease.stamp.epoch.0);
        self.sequences.push(lease.stamp.sequence);
    }

    fn entry(&mut self, (revision, lease): &(StoreRevision, Lease)) {
        self.revisions.push(revision.0);
        self.lease(lease);
    }

    fn request(&mut self, request: &Request) {
        match request {
            Request::Read { sequence } => self.sequences.push(*sequence),
            Request::Write { sequence, expected, lease } => {
                self.sequences.push(*sequence);
                self.revisions.extend(expected.map(|revision| revision.0));
                self.lease(lease);
            }
        }
    }

    fn answer(&mut self, answer: &Input) {
        match answer {
            Input::Read { sequence, outcome: Ok(entry) } => {
                self.sequences.push(*sequence);
                entry.iter().for_each(|entry| self.entry(entry));
            }
            Input::Wrote { sequence, outcome } => {
                self.sequences.push(*sequence);
                self.revisions.extend(outcome.iter().map(|revision| revision.0));
            }
            other => panic!("{other:?} is no answer"),
        }
    }

    fn lead(&mut self, lead: &Leadership) {
        self.revisions.extend(lead.epoch.iter().chain(&lead.previous).map(|epoch| epoch.0));
        if let Some(seen) = &lead.copy.entry {
            self.entry(&(seen.revision, seen.lease.clone().expect("leases are well made")));
        }
        if let Some(Pending::Write { sequence, .. } | Pending::Read { sequence }) = lead.pending {
            self.sequences.push(sequence);
        }
        self.sequences.extend(lead.sent.iter().map(|(sequence, _)| sequence));
        self.revisions.extend(lead.hold.iter().flat_map(|hold| [hold.term.0, hold.revision.0]));
        self.sequences.extend(lead.hold.iter().map(|hold| hold.sequence));
    }
}

/// Hashes parts of a world of the moment `now`.
struct Canon<'h, H> {
    now: Moment,
    revisions: Ranks,
    sequences: Ranks,
    to: &'h mut H,
}

impl<H: Hasher> Canon<'_, H> {
    fn put(&mut self, value: impl Hash) {
        value.hash(self.to);
    }

    /// A moment of the past that counts for so long.
    fn past(&mut self, at: Moment, counts: u64) {
        self.put(self.now.since(at).min(counts));
    }

    /// A moment until which something is to wait.
    fn wait(&mut self, until: Moment) {
        self.put(until.since(self.now));
    }

    fn revision(&mut self, revision: u64) {
        self.put(self.revisions.rank(revision));
    }

    fn sequence(&mut self, sequence: u64) {
        self.put(self.sequences.rank(sequence));
    }

    fn lease(&mut self, lease: &Lease) {
        let Lease { format: _, holder, stamp, term, failover: _, state, to, other: _ } = lease;
        self.put((holder, state, to, term.is_some()));
        term.iter().for_each(|term| self.revision(term.0));
        self.revision(stamp.epoch.0);
        self.sequence(stamp.sequence);
    }

    fn entry(&mut self, (revision, lease): &(StoreRevision, Lease)) {
        self.revision(revision.0);
        self.lease(lease);
    }

    fn request(&mut self, request: Option<&Request>) {
        match request {
            None => self.put(0),
            Some(Request::Read { sequence }) => {
                self.put(1);
                self.sequence(*sequence);
            }
            Some(Request::Write { sequence, expected, lease }) => {
                self.put((2, expected.is_some()));
                self.sequence(*sequence);
                expected.iter().for_each(|revision| self.revision(revision.0));
                self.lease(lease);
            }
        }
    }

    fn answer(&mut self, answer: Option<&Input>) {
        match answer {
            Some(Input::Read { sequence, outcome: Ok(entry) }) => {
                self.put((1, entry.is_some()));
                self.sequence(*sequence);
                entry.iter().for_each(|entry| self.entry(entry));
            }
            Some(Input::Wrote { sequence, outcome }) => {
                self.put((2, outcome.is_ok(), outcome.err()));
                self.sequence(*sequence);
                outcome.iter().for_each(|revision| self.revision(revision.0));
            }
            _ => self.put(0),
        }
    }

    fn replica(&mut self, Replica { lead, request, answer, late, untold, stopping, has_led }: &Replica) {
        self.lead(lead);
        self.request(request.as_ref());
        self.answer(answer.as_ref());
        self.request(late.as_ref());
        self.put(untold.len());
        untold.iter().for_each(|entry| self.entry(entry));
        self.put((stopping, has_led));
    }

    fn lead(&mut self, lead: &Leadership) {
        // Every field is named, so that a new one is not forgotten.
        let Leadership {
            me,
            options,
            epoch,
            previous,
            is_eligible,
            is_set_aside,
            is_stopping,
            replaced_by,
            state,
            since,
            copy,
            sequence: _,
            pending,
            sent,
            hold,
            // There is no reload in the model.
            length: _,
            fence_time: _,
            last_of_length: _,
            lost,
            is_claim_lost,
            is_left,
            wants_read,
            has_read,
            asked,
            deaf_until,
            humble_until,
            lost_claims,
            hook_failures,
            work,
            failures,
            successes,
            next_try,
            next_beat,
        } = lead;
        let failover = options.timing.failover;
        self.put((me, is_eligible, is_set_aside, is_stopping, replaced_by, state, lost, is_claim_lost, is_left));
        // The pause after a lost claim is doubled up to the failover time; more change nothing.
        let is_longest = |lost: &u32| options.timing.retry_pause(0) << lost >= failover;
        let longest = (0..=MOST_LOST).find(is_longest).unwrap_or(MOST_LOST);
        self.put(((*lost_claims).min(longest), hook_failures));
        self.put((wants_read, has_read, asked, failures, successes, epoch.is_some(), previous.is_some()));
        epoch.iter().chain(previous).for_each(|epoch| self.revision(epoch.0));
        match state {
            State::Candidate => self.past(*since, failover),
            State::Yielding => self.past(*since, options.yield_timeout),
            _ => {}
        }
        self.put((copy.entry.is_some(), copy.is_synced, copy.absent_since.is_some()));
        if let Some(seen) = &copy.entry {
            self.entry(&(seen.revision, seen.lease.clone().expect("leases are well made")));
            self.past(seen.since, failover);
        }
        match pending {
            None => self.put(0),
            Some(Pending::Read { sequence }) => {
                self.put(1);
                self.sequence(*sequence);
            }
            Some(Pending::Write { sequence, purpose, sent }) => {
                self.put((2, purpose));
                self.sequence(*sequence);
                self.past(*sent, options.timing.lease);
            }
        }
        for (sequence, sent) in sent {
            self.sequence(*sequence);
            self.past(*sent, options.timing.lease);
        }
        self.put((hold.is_some(), work.relative_to(self.now)));
        if let Some(Hold { term, revision, stored, sequence, echoed, is_doubted }) = hold {
            self.sequence(*sequence);
            self.revision(term.0);
            self.revision(revision.0);
            self.past(*stored, options.timing.lease);
            self.put((echoed.is_some(), is_doubted));
            echoed.iter().for_each(|echoed| self.past(*echoed, options.timing.lease));
        }
        for until in [deaf_until, humble_until, next_try] {
            self.wait(*until);
        }
        if !matches!(state, State::Watching | State::Fenced) {
            self.wait(*next_beat);
        }
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let mut gathered = Gathered::default();
        let Self { now, revision, writes: _, timing: _, entry, replicas, losses, crashes, asks, stops, .. } = self;
        let Self { has_fenced, has_resumed, has_yielded, .. } = self;
        entry.iter().for_each(|entry| gathered.entry(entry));
        for replica in replicas {
            gathered.lead(&replica.lead);
            replica.request.iter().chain(&replica.late).for_each(|request| gathered.request(request));
            replica.answer.iter().for_each(|answer| gathered.answer(answer));
            replica.untold.iter().for_each(|entry| gathered.entry(entry));
        }
        let (revisions, sequences) = (Ranks::of(gathered.revisions), Ranks::of(gathered.sequences));
        let mut canon = Canon { now: *now, revisions, sequences, to };
        canon.put((revision, losses, crashes, asks, stops, has_fenced, has_resumed, has_yielded, entry.is_some()));
        entry.iter().for_each(|entry| canon.entry(entry));
        replicas.iter().for_each(|replica| canon.replica(replica));
    }
}
