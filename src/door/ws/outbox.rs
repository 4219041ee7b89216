//! stand-in
use std::{collections::VecDeque, sync::{Arc, Mutex}, task::{Context, Poll, Waker}};
use bytes::Bytes;
pub(super) struct Mailbox { state: Mutex<State>, limit: usize }
#[derive(Default)]
struct State { letters: VecDeque<Letter>, bytes: usize, waker: Option<Waker> }
pub(super) enum Letter { Answer(Bytes) }
impl Mailbox {
    pub(super) fn new(limit: usize) -> Arc<Self> { Arc::new(Self { state: Mutex::default(), limit }) }
    pub(super) fn push_answer(&self, answer: Bytes) {
        let mut s = self.state.lock().expect("x");
        s.bytes += answer.len();
        s.letters.push_back(Letter::Answer(answer));
        let _ = self.limit;
        if let Some(w) = s.waker.take() { w.wake(); }
    }
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Letter> {
        let mut s = self.state.lock().expect("x");
        if let Some(l) = s.letters.pop_front() { let Letter::Answer(b) = &l; s.bytes -= b.len(); return Poll::Ready(l); }
        s.waker = Some(cx.waker().clone());
        Poll::Pending
    }
    pub(super) fn waiting_bytes(&self) -> usize { self.state.lock().expect("x").bytes }
}
