//! The order, the bounds and the end of the messages of one client.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::Wake,
};

use futures_util::task::noop_waker_ref;

use super::*;
use crate::memory::{Budget, FREE};

struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

const EMPTY: usize = mem::size_of::<Outbound>();

fn next(mailbox: &Mailbox) -> Option<Outbound> {
    match mailbox.poll_next(&mut Context::from_waker(noop_waker_ref())) {
        Poll::Ready(message) => Some(message),
        Poll::Pending => None,
    }
}

fn text(mailbox: &Mailbox) -> String {
    match next(mailbox) {
        Some(Outbound::Answer(answer, _)) => String::from_utf8(answer.to_vec()).unwrap(),
        Some(Outbound::Notification(note)) => {
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
    assert!(mailbox.push_notifications(&head, &["2".into(), "[3]".into()]));
    mailbox.push_answer("four".into());
    assert_eq!(mailbox.waiting_bytes(), 4 * EMPTY + 7 + 2 * (head.len() + 2) + 4);
    assert_eq!(text(&mailbox), "one");
    assert_eq!(text(&mailbox), r#"{"a":{"b":1,"result":2}}"#);
    assert_eq!(text(&mailbox), r#"{"a":{"b":1,"result":[3]}}"#);
    assert_eq!(text(&mailbox), "four");
    assert_eq!((next(&mailbox), mailbox.waiting_bytes()), (None, 0));
}

#[test]
fn the_backlog_is_bounded_and_beyond_it_the_client_is_closed() {
    let mailbox = Mailbox::new(10 * (EMPTY + 10));
    for _ in 0..10 {
        mailbox.push_answer("0123456789".into());
    }
    assert_eq!(text(&mailbox), "0123456789");
    mailbox.push_answer("0123456789".into());
    assert_eq!(mailbox.waiting_bytes(), 10 * (EMPTY + 10), "full, and nothing is wrong");
    assert!(!mailbox.push_notifications(&"".into(), &["1".into()]));
    assert_eq!(mailbox.waiting_bytes(), 0, "the memory is free at once");
    mailbox.push_answer("late".into());
    mailbox.close(Closing::Gap);
    for _ in 0..2 {
        assert_eq!(next(&mailbox), Some(Outbound::Close(Closing::Slow)));
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
    // Waiting messages are lost; a message that was taken is not.
    let Some(Outbound::Answer(_, Some(one))) = next(&mailbox) else { panic!("no receipt") };
    mailbox.push_answer("0123456789".into());
    mailbox.push_answer("0123456789".into());
    assert_eq!((next(&mailbox), told.load(Relaxed)), (Some(Outbound::Close(Closing::Slow)), 2));
    one.has_left();
    assert_eq!(told.swap(0, Relaxed), 102);
    let mailbox = Mailbox::new(2 * (EMPTY + 10));
    mailbox.push_answer_with("two".into(), receipt().into_iter().chain(receipt()).collect());
    let Some(Outbound::Answer(_, Some(two))) = next(&mailbox) else { panic!("no receipt") };
    two.has_left();
    assert_eq!(told.swap(100, Relaxed), 200, "both of a batch have left");
    (0..4).for_each(|_| mailbox.push_answer_with("0123456789".into(), receipt()));
    assert_eq!(next(&mailbox), Some(Outbound::Close(Closing::Slow)));
    assert_eq!(told.load(Relaxed), 104, "one has left, and of the others none will");
}

#[test]
fn one_who_can_take_nothing_is_woken_by_the_end_alone() {
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
    assert!(matches!(next(&mailbox), Some(Outbound::Answer(..))));
    assert_eq!(next(&mailbox), None);
}

#[test]
fn a_close_follows_what_waits_and_nothing_follows_it() {
    let mailbox = Mailbox::new(1000);
    mailbox.push_answer("one".into());
    mailbox.close(Closing::Gap);
    mailbox.push_answer("two".into());
    assert!(!mailbox.push_notifications(&"".into(), &["3".into()]));
    assert_eq!(text(&mailbox), "one");
    assert_eq!(next(&mailbox), Some(Outbound::Close(Closing::Gap)));
}

#[test]
fn an_emptied_mailbox_gives_back_the_memory_of_a_burst() {
    let mailbox = Mailbox::new(1 << 20);
    (0..1000).for_each(|_| mailbox.push_answer("x".into()));
    while next(&mailbox).is_some() {}
    assert!(mailbox.lock().messages.capacity() <= KEPT_MESSAGES);
    assert!(EMPTY <= 48 && mem::size_of::<Mailbox>() <= 136, "{EMPTY} {}", mem::size_of::<Mailbox>());
}

#[test]
fn receiver_is_woken_once_for_all_that_comes() {
    let (mailbox, bell) = (Mailbox::new(1000), Arc::new(Bell(AtomicUsize::new(0))));
    let waker = bell.clone().into();
    let mut rung = 0;
    let pushes: [&dyn Fn(); 3] = [
        &|| mailbox.push_answer("x".into()),
        &|| _ = mailbox.push_notifications(&"".into(), &["1".into(), "2".into()]),
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

#[tokio::test(start_paused = true)]
async fn unwritten_bytes_without_room_close_and_stay_counted() {
    const LONG: usize = 100_000;
    let budget = Budget::new(LONG / 2);
    let (mailbox, bell) = (Mailbox::of(&Account::open(&budget), 1 << 20), Arc::new(Bell(AtomicUsize::new(0))));
    let waker = bell.clone().into();
    assert!(mailbox.poll_end(&mut Context::from_waker(&waker)).is_pending());
    // The client takes none of a notification that was put into a frame for it.
    tokio::time::advance(2 * SHARED).await;
    mailbox.note_unwritten(LONG);
    assert_eq!((bell.0.load(Relaxed), budget.held() >= LONG - FREE), (1, true), "{}", budget.held());
    assert_eq!(next(&mailbox), Some(Outbound::Close(Closing::Full)));
    drop(mailbox);
    assert_eq!(budget.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn notes_count_once_the_client_has_left_them() {
    let budget = Budget::new(64 << 10);
    let (head, block): (Arc<str>, Arc<str>) = ("".into(), "x".repeat(20_000).into());
    let mailboxes = [(); 2].map(|()| Mailbox::of(&Account::of(&budget, None), 1 << 20));
    let stuck = |mailbox: &Mailbox| mailbox.poll_end(&mut Context::from_waker(noop_waker_ref()));
    let [read, left] = &mailboxes;
    for _ in 0..3 {
        for mailbox in &mailboxes {
            assert!(stuck(mailbox).is_pending());
            assert!(mailbox.push_notifications(&head, &vec![block.clone(); 5]));
        }
        tokio::time::advance(SHARED / 4).await;
        assert_eq!((0..6).map_while(|_| next(read)).count(), 5);
        // The last bytes of the last message are on their way, and then all are written.
        assert!(stuck(read).is_pending() && next(read).is_none());
        assert_eq!(budget.held(), 0);
    }
    tokio::time::advance(SHARED).await;
    assert!(read.push_notifications(&head, std::slice::from_ref(&block)));
    assert_eq!(stuck(left), Poll::Ready(Closing::Full));
    assert!(stuck(read).is_pending());
    // A client that takes some from time to time, and never all, has left some too.
    for _ in 0..4 {
        read.push_notifications(&head, &vec![block.clone(); 2]);
        tokio::time::advance(SHARED / 2).await;
        let _ = (next(read), stuck(read));
    }
    assert_eq!((stuck(read), budget.held()), (Poll::Ready(Closing::Full), 0));
}
