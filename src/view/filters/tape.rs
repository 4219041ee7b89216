//! What happened, in order, of which the oldest is forgotten; and what one poll takes of it.

use std::{collections::VecDeque, sync::Arc};

use crate::call::kept::AnswerRoom;

/// Bytes of a hash in an answer, and of what parts two items of a list.
pub(super) const HASH: usize = 68;
pub(super) const COMMA: usize = 1;

/// How much one poll may take, in bytes of its answer's list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// What is more is left to the next poll.
    pub(super) usual: usize,
    /// What belongs together may be longer than usual, but not than this.
    pub(super) ever: usize,
}

impl Most {
    /// Bytes of one answer, where one block does not bring more. The rest comes with the next poll.
    const USUAL: usize = 4 << 20;
    /// An answer takes such a part of its room at most, where one block does not bring more.
    const PART: usize = 4;

    /// What fits into `room` beside the answers to the other polls of the message, where an answer has `frame` bytes around its list.
    /// No answer is longer than `longest`.
    pub(super) fn of(room: AnswerRoom, frame: usize, longest: usize) -> Self {
        let ever = room.longest.saturating_sub(frame).min(longest);
        // One part more than there are polls is left to other calls.
        let parts = room.polls.saturating_add(1).max(Self::PART);
        let usual = (room.longest / parts).saturating_sub(frame + COMMA).min(ever / Self::PART);
        Self { usual: usual.min(Self::USUAL), ever }
    }
}

/// Why a filter cannot be told what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// Logs that it wants cannot be had.
    Missing,
    /// One block, or one transaction, brings more than can be sent at once.
    TooLong,
}

/// Items in order, of which the oldest are forgotten.
#[derive(Debug)]
pub(super) struct Tape<T> {
    /// The position of the oldest item.
    first: u64,
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Default for Tape<T> {
    fn default() -> Self {
        Self { first: 1, items: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Tape<T> {
    /// The position of the next item.
    pub(super) fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// `bytes` is what the item takes.
    pub(super) fn push(&mut self, item: T, bytes: usize) {
        self.items.push_back((item, bytes));
        self.bytes += bytes;
    }

    pub(super) fn drop_oldest(&mut self) {
        if let Some((_, bytes)) = self.items.pop_front() {
            self.bytes -= bytes;
            self.first += 1;
        }
    }

    /// Forgets what is before `position`.
    pub(super) fn drop_before(&mut self, position: u64) {
        while self.first < position && !self.items.is_empty() {
            self.drop_oldest();
        }
        if self.items.is_empty() {
            // A burst does not keep its memory.
            self.items = VecDeque::new();
        }
    }

    /// The items from `position` on, each with its position.
    pub(super) fn from(&self, position: u64) -> impl Iterator<Item = (u64, &T)> {
        let skip = usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let at = self.first.max(position);
        (at..).zip(self.items.iter().skip(skip).map(|(item, _)| item))
    }

    /// The newest item that `is_it`, with its position.
    pub(super) fn find_last(&mut self, is_it: impl Fn(&T) -> bool) -> Option<(u64, &mut T, &mut usize, &mut usize)> {
        let (first, all) = (self.first, &mut self.bytes);
        let place = self.items.iter().rposition(|(item, _)| is_it(item))?;
        let (item, bytes) = self.items.get_mut(place)?;
        Some((first + place as u64, item, bytes, all))
    }
}

impl Tape<Arc<str>> {
    /// The texts from `cursor` on, as many as fit, and where that ends.
    pub(super) fn texts(&self, cursor: u64, most: Most) -> Result<(Vec<Arc<str>>, u64), Lack> {
        let mut basket = Basket::new(most);
        for (position, text) in self.from(cursor) {
            if !basket.put(std::iter::once(text))? {
                return Ok((basket.texts, position));
            }
        }
        Ok((basket.texts, self.end()))
    }
}

/// What a poll has taken so far.
pub(super) struct Basket {
    pub(super) texts: Vec<Arc<str>>,
    bytes: usize,
    most: Most,
}

impl Basket {
    pub(super) fn new(most: Most) -> Self {
        Self { texts: Vec::new(), bytes: 0, most }
    }

    /// Puts in what belongs together. `false`: it is to be left to the next poll.
    ///
    /// # Errors
    /// When it is too long for any poll.
    pub(super) fn put<'a>(&mut self, texts: impl Iterator<Item = &'a Arc<str>>) -> Result<bool, Lack> {
        let (count, before) = (self.texts.len(), self.bytes);
        for text in texts {
            self.bytes += text.len() + COMMA;
            if self.bytes - before > self.most.ever {
                // Where something else goes first, the next poll finds that out.
                return if before > 0 { Ok(self.take_out(count, before)) } else { Err(Lack::TooLong) };
            }
            self.texts.push(text.clone());
        }
        if before > 0 && self.bytes > self.most.usual && self.bytes > before {
            return Ok(self.take_out(count, before));
        }
        Ok(true)
    }

    fn take_out(&mut self, count: usize, bytes: usize) -> bool {
        self.texts.truncate(count);
        self.bytes = bytes;
        false
    }
}
