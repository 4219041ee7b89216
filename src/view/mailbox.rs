//! The messages that wait to be sent to one client: answers and notifications in one order, bounded
//! in bytes.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use crate::{
    call::answer::receipt::Receipt,
    memory::{Account, Claim, SMALL},
};

/// Letters whose memory an emptied queue keeps.
const KEPT: usize = 4;
/// The text behind the result of a notification.
const TAIL: &[u8] = b"}}";

/// The messages that wait for one client. Putting in a message wakes the task that takes them.
pub struct Mailbox {
    queue: Mutex<Queue>,
    /// Bytes that may wait, at most.
    limit: usize,
    /// The account of the client.
    memory: Arc<Account>,
}

/// The next thing to send.
#[derive(Debug, PartialEq, Eq)]
pub enum Letter {
    /// An answer, or a whole batch of them, and the receipt that reports whether the answer has
    /// left. The two stay together, so that an answer that is dropped drops its receipt.
    Answer(Bytes, Option<Box<Receipt>>),
    /// A notification.
    Note(Note),
    /// Nothing follows: the connection is to be closed.
    Close(Closing),
}

/// Why a client's connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// More bytes than the limit would wait: the client is too slow. The waiting messages are
    /// dropped.
    Slow,
    /// Logs are missing, and the client must not believe to have them all.
    Gap,
    /// There will be no more notifications, because the task behind them has ended.
    Gone,
    /// The client takes little, and all clients together fill the memory limit. The waiting
    /// messages are dropped.
    Full,
}

/// A notification: `head`, the result, and two braces. The first two are shared with other letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The text up to the result: one for each subscription.
    head: Arc<str>,
    /// The result: one for all subscribers with the same wish.
    result: Arc<str>,
}

struct Queue {
    letters: VecDeque<Letter>,
    /// The sum of the letters' weights.
    bytes: usize,
    /// The weights of the answers among them. Notifications share their text with other clients.
    answers: usize,
    /// Bytes of letters that were taken from here and are not wholly written.
    unwritten: usize,
    /// The client's claim on memory: for the answers, and for all letters while the client takes
    /// none.
    claim: Option<Box<Claim>>,
    /// The weights of notifications that wait elsewhere, for subscriptions that have not begun.
    held: usize,
    /// Comes after the letters, and lets no further ones in.
    closing: Option<Closing>,
    waker: Option<Waker>,
    /// Whether the receiver can take no letter now, and is woken only on close.
    is_stuck: bool,
}

impl Mailbox {
    /// A mailbox in which `limit` bytes may wait; a letter counts with its text and its place in
    /// the queue.
    pub fn new(limit: usize) -> Arc<Self> {
        Self::of(&Account::unlimited(), limit)
    }

    /// The mailbox of the client with this account.
    pub fn of(memory: &Arc<Account>, limit: usize) -> Arc<Self> {
        let queue = Queue {
            letters: VecDeque::new(),
            bytes: 0,
            answers: 0,
            unwritten: 0,
            claim: None,
            held: 0,
            closing: None,
            waker: None,
            is_stuck: false,
        };
        Arc::new(Self { queue: Mutex::new(queue), limit, memory: memory.clone() })
    }

    /// The account of the client.
    pub fn memory(&self) -> &Arc<Account> {
        &self.memory
    }

    /// Sets the bytes of letters that were taken from here and are not wholly written.
    pub fn note_unwritten(&self, bytes: usize) {
        let mut queue = self.lock();
        if queue.unwritten != bytes {
            queue.unwritten = bytes;
            queue.count(&self.memory);
        }
    }

    /// Puts in an answer.
    pub fn push_answer(&self, answer: Bytes) {
        self.push_answer_with(answer, Vec::new());
    }

    /// Puts in an answer. `receipts` report whether the answer is written.
    pub fn push_answer_with(&self, answer: Bytes, receipts: Vec<Receipt>) {
        let mut queue = self.lock();
        queue.push(Letter::Answer(answer, Receipt::of_all(receipts)), self);
        queue.wake();
    }

    /// Puts in one notification for each of `results`, in their order. `false` when the client is
    /// being closed, and so gets none.
    pub(super) fn push_notes(&self, head: &Arc<str>, results: &[Arc<str>]) -> bool {
        let mut queue = self.lock();
        for result in results {
            queue.push(Letter::Note(Note { head: head.clone(), result: result.clone() }), self);
        }
        queue.wake();
        queue.closing.is_none()
    }

    /// Counts notifications that wait until their subscription begins. At most a quarter of the
    /// limit may wait so; the WebSocket session stops answers at three quarters. `false` when the
    /// client is being closed, perhaps because of these notifications.
    pub(super) fn hold(&self, head: &Arc<str>, results: &[Arc<str>]) -> bool {
        let mut queue = self.lock();
        for result in results {
            let weight = Letter::Note(Note { head: head.clone(), result: result.clone() }).weight();
            if queue.closing.is_none() && queue.held > 0 && queue.held + weight > self.limit / 4 {
                queue.overflow();
                queue.wake();
            }
            queue.held += weight;
        }
        queue.closing.is_none()
    }

    /// Stops counting notifications of [`Mailbox::hold`]. To send these, put them in.
    pub(super) fn release(&self, head: &Arc<str>, results: &[Arc<str>]) {
        let weight = |result: &Arc<str>| Letter::Note(Note { head: head.clone(), result: result.clone() }).weight();
        let weight: usize = results.iter().map(weight).sum();
        let mut queue = self.lock();
        queue.held = queue.held.saturating_sub(weight);
    }

    /// Closes the client behind the letters that wait.
    pub(super) fn close(&self, why: Closing) {
        let mut queue = self.lock();
        queue.closing.get_or_insert(why);
        queue.wake();
    }

    /// Takes the next letter. After [`Letter::Close`] every further call returns the same close.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Letter> {
        let mut queue = self.lock();
        if let Some(letter) = queue.letters.pop_front() {
            queue.bytes -= letter.weight();
            if matches!(letter, Letter::Answer(..)) {
                queue.answers -= letter.weight();
            }
            queue.is_stuck = false;
            queue.count(&self.memory);
            if queue.letters.is_empty() && queue.letters.capacity() > KEPT {
                queue.letters = VecDeque::new();
            }
            return Poll::Ready(letter);
        }
        if let Some(why) = queue.closing {
            return Poll::Ready(Letter::Close(why));
        }
        queue.wait(context, false);
        Poll::Pending
    }

    /// Waits for the close, once no letter is left before it. For a receiver that can take no
    /// letter now: new letters do not wake it.
    pub fn poll_end(&self, context: &mut Context<'_>) -> Poll<Closing> {
        let mut queue = self.lock();
        queue.is_stuck = true;
        queue.count(&self.memory);
        if let Some(why) = queue.closing.filter(|_| queue.letters.is_empty()) {
            return Poll::Ready(why);
        }
        queue.wait(context, true);
        Poll::Pending
    }

    /// The weight of the letters that wait, as the limit counts it.
    pub fn waiting_bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A queue is whole at every moment, so a panic elsewhere cannot have spoilt it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, letter: Letter, mailbox: &Mailbox) {
        if self.closing.is_some() {
            return;
        }
        let weight = letter.weight();
        // A single long letter is no sign of a slow client, so an empty queue takes any letter.
        if self.bytes > 0 && self.bytes + weight > mailbox.limit {
            self.overflow();
        } else {
            self.bytes += weight;
            if matches!(letter, Letter::Answer(..)) {
                self.answers += weight;
            }
            self.letters.push_back(letter);
            self.count(&mailbox.memory);
        }
    }

    fn overflow(&mut self) {
        self.closing.get_or_insert(Closing::Slow);
        self.clear();
    }

    fn clear(&mut self) {
        self.letters = VecDeque::new();
        (self.bytes, self.answers) = (0, 0);
        self.claim = None;
    }

    /// Sets the claim to the bytes that count now. While the client takes letters, only answers
    /// count, whose memory was granted before they came here. While the client takes none,
    /// notifications count too, and the client is closed if the memory limit has no room for them.
    fn count(&mut self, memory: &Arc<Account>) {
        let counted = self.unwritten + if self.is_stuck { self.bytes } else { self.answers };
        if counted <= SMALL {
            self.claim = None;
            return;
        }
        let claim = self.claim.get_or_insert_with(|| Box::new(memory.outgoing()));
        if !self.is_stuck {
            claim.set(counted);
        } else if claim.resize(counted).is_err() {
            self.closing.get_or_insert(Closing::Full);
            self.clear();
        }
    }

    fn wait(&mut self, context: &mut Context<'_>, is_stuck: bool) {
        self.is_stuck = is_stuck;
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    fn wake(&mut self) {
        if self.is_stuck && self.closing.is_none() {
            return;
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Letter {
    fn weight(&self) -> usize {
        mem::size_of::<Self>()
            + match self {
                Self::Answer(answer, _) => answer.len(),
                Self::Note(note) => note.len(),
                Self::Close(_) => 0,
            }
    }
}

impl Note {
    /// Bytes of the whole text.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.head.len() + self.result.len() + TAIL.len()
    }

    /// The text in pieces, which are UTF-8 together.
    pub fn parts(&self) -> [&[u8]; 3] {
        [self.head.as_bytes(), self.result.as_bytes(), TAIL]
    }

    /// Appends the text to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.len());
        self.parts().iter().for_each(|part| out.extend_from_slice(part));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
        task::Wake,
    };

    use futures_util::task::noop_waker_ref;

    use super::*;

    const EMPTY: usize = mem::size_of::<Letter>();

    fn next(mailbox: &Mailbox) -> Option<Letter> {
        match mailbox.poll_next(&mut Context::from_waker(noop_waker_ref())) {
            Poll::Ready(letter) => Some(letter),
            Poll::Pending => None,
        }
    }

    fn text(mailbox: &Mailbox) -> String {
        match next(mailbox) {
            Some(Letter::Answer(answer, _)) => String::from_utf8(answer.to_vec()).unwrap(),
            Some(Letter::Note(note)) => {
                let mut out = Vec::new();
                note.write(&mut out);
                assert_eq!(out.len(), note.len());
                String::from_utf8(out).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answers_and_notes_leave_in_the_order_in_which_they_came() {
        let mailbox = Mailbox::new(10_000);
        let head: Arc<str> = r#"{"a":{"b":1,"result":"#.into();
        mailbox.push_answer("one".into());
        assert!(mailbox.push_notes(&head, &["2".into(), "[3]".into()]));
        mailbox.push_answer("four".into());
        assert_eq!(mailbox.waiting_bytes(), 4 * EMPTY + 7 + 2 * (head.len() + 2) + 4);
        assert_eq!(text(&mailbox), "one");
        assert_eq!(text(&mailbox), r#"{"a":{"b":1,"result":2}}"#);
        assert_eq!(text(&mailbox), r#"{"a":{"b":1,"result":[3]}}"#);
        assert_eq!(text(&mailbox), "four");
        assert_eq!((next(&mailbox), mailbox.waiting_bytes()), (None, 0));
    }

    #[test]
    fn what_waits_is_bounded_and_past_it_the_client_is_closed_at_once() {
        let mailbox = Mailbox::new(10 * (EMPTY + 10));
        for _ in 0..10 {
            mailbox.push_answer("0123456789".into());
        }
        assert_eq!(text(&mailbox), "0123456789");
        mailbox.push_answer("0123456789".into());
        assert_eq!(mailbox.waiting_bytes(), 10 * (EMPTY + 10), "full, and nothing is wrong");
        assert!(!mailbox.push_notes(&"".into(), &["1".into()]));
        assert_eq!(mailbox.waiting_bytes(), 0, "the memory is free at once");
        mailbox.push_answer("late".into());
        mailbox.close(Closing::Gap);
        for _ in 0..2 {
            assert_eq!(next(&mailbox), Some(Letter::Close(Closing::Slow)));
        }
    }

    #[test]
    fn receipts_leave_with_their_answer_and_are_dropped_with_it() {
        let told = Arc::new(AtomicUsize::new(0));
        let receipt = || {
            let told = told.clone();
            vec![Receipt::new(move |has_left| _ = told.fetch_add(if has_left { 100 } else { 1 }, Relaxed))]
        };
        let mailbox = Mailbox::new(2 * (EMPTY + 10));
        mailbox.push_answer_with("one".into(), receipt());
        mailbox.push_answer_with("two".into(), receipt().into_iter().chain(receipt()).collect());
        // Waiting letters are lost; a letter that was taken is not.
        let Some(Letter::Answer(_, Some(one))) = next(&mailbox) else { panic!("no receipt") };
        mailbox.push_answer("0123456789".into());
        mailbox.push_answer("0123456789".into());
        assert_eq!((next(&mailbox), told.load(Relaxed)), (Some(Letter::Close(Closing::Slow)), 2));
        one.has_left();
        assert_eq!(told.swap(0, Relaxed), 102);
        let mailbox = Mailbox::new(2 * (EMPTY + 10));
        mailbox.push_answer_with("two".into(), receipt().into_iter().chain(receipt()).collect());
        let Some(Letter::Answer(_, Some(two))) = next(&mailbox) else { panic!("no receipt") };
        two.has_left();
        assert_eq!(told.swap(100, Relaxed), 200, "both of a batch have left");
        (0..4).for_each(|_| mailbox.push_answer_with("0123456789".into(), receipt()));
        assert_eq!(next(&mailbox), Some(Letter::Close(Closing::Slow)));
        assert_eq!(told.load(Relaxed), 104, "one has left, and of the others none will");
    }

    #[test]
    fn one_who_can_take_nothing_is_woken_by_the_end_alone() {
        struct Bell(AtomicUsize);
        impl Wake for Bell {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let (mailbox, bell) = (Mailbox::new(2 * EMPTY), Arc::new(Bell(AtomicUsize::new(0))));
        let waker = bell.clone().into();
        let mut context = Context::from_waker(&waker);
        for pushed in 1..=2 {
            assert!(mailbox.poll_end(&mut context).is_pending());
            mailbox.push_answer("".into());
            assert_eq!((bell.0.load(Relaxed), mailbox.waiting_bytes()), (0, pushed * EMPTY));
        }
        mailbox.push_answer("".into());
        assert_eq!(bell.0.load(Relaxed), 1);
        assert_eq!(mailbox.poll_end(&mut context), Poll::Ready(Closing::Slow));
        let mailbox = Mailbox::new(1000);
        mailbox.push_answer("before it".into());
        mailbox.close(Closing::Gap);
        assert!(mailbox.poll_end(&mut context).is_pending());
        assert_eq!(text(&mailbox), "before it");
        assert_eq!(mailbox.poll_end(&mut context), Poll::Ready(Closing::Gap));
    }

    #[test]
    fn one_long_letter_closes_nobody() {
        let mailbox = Mailbox::new(10);
        mailbox.push_answer_with(vec![b'x'; 1000].into(), vec![Receipt::new(|_| {})]);
        assert!(matches!(next(&mailbox), Some(Letter::Answer(..))));
        assert_eq!(next(&mailbox), None);
    }

    #[test]
    fn a_close_follows_what_waits_and_nothing_follows_it() {
        let mailbox = Mailbox::new(1000);
        mailbox.push_answer("one".into());
        mailbox.close(Closing::Gap);
        mailbox.push_answer("two".into());
        assert!(!mailbox.push_notes(&"".into(), &["3".into()]));
        assert_eq!(text(&mailbox), "one");
        assert_eq!(next(&mailbox), Some(Letter::Close(Closing::Gap)));
    }

    #[test]
    fn an_emptied_mailbox_gives_back_the_memory_of_a_burst() {
        let mailbox = Mailbox::new(1 << 20);
        (0..1000).for_each(|_| mailbox.push_answer("x".into()));
        while next(&mailbox).is_some() {}
        assert!(mailbox.lock().letters.capacity() <= KEPT);
        assert!(EMPTY <= 48 && mem::size_of::<Mailbox>() <= 128, "{EMPTY} {}", mem::size_of::<Mailbox>());
    }

    #[test]
    fn who_waits_is_woken_once_for_whatever_comes() {
        struct Bell(AtomicUsize);
        impl Wake for Bell {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let (mailbox, bell) = (Mailbox::new(1000), Arc::new(Bell(AtomicUsize::new(0))));
        let waker = bell.clone().into();
        let mut rung = 0;
        let pushes: [&dyn Fn(); 3] = [
            &|| mailbox.push_answer("x".into()),
            &|| _ = mailbox.push_notes(&"".into(), &["1".into(), "2".into()]),
            &|| mailbox.close(Closing::Gone),
        ];
        for push in pushes {
            while next(&mailbox).is_some() {}
            assert!(mailbox.poll_next(&mut Context::from_waker(&waker)).is_pending());
            push();
            push();
            rung += 1;
            assert_eq!(bell.0.load(Relaxed), rung);
        }
    }
}
