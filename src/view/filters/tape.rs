//! A record of entries in order, which drops its oldest, and the part of it that one poll takes.

use std::{collections::VecDeque, sync::Arc};

use crate::call::filter_calls::AnswerRoom;

/// Bytes of a hash in an answer, and between two items of a list.
pub(super) const HASH: usize = 68;
pub(super) const COMMA: usize = 1;

/// How much one poll may take, in bytes of its answer's list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// Entries beyond these are left to the next poll.
    pub(super) usual: usize,
    /// The logs of one block may be longer than usual, but not than this.
    pub(super) ever: usize,
}

impl Most {
    /// Bytes of one answer, where one block does not bring more. The rest comes with the next poll.
    const USUAL: usize = 4 << 20;
    /// An answer takes such a part of its room at most, unless a single block brings more.
    const PART: usize = 4;

    /// The bytes that one poll may take of `room`. An answer has `frame` bytes around its list, and
    /// is not longer than `longest`.
    pub(super) fn of(room: AnswerRoom, frame: usize, longest: usize) -> Self {
        let ever = room.longest.saturating_sub(frame).min(longest);
        let usual = room.part.saturating_sub(frame + COMMA).min(ever / Self::PART);
        Self { usual: usual.min(Self::USUAL), ever }
    }
}

/// Why a filter cannot be told the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// No node gives logs that the filter may want.
    Missing,
    /// A single block, or a single transaction, is longer than any answer can be.
    TooLong,
}

/// Items in order, each with a position and its bytes.
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

    /// Adds an item that takes `bytes` bytes of memory.
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

    /// Drops the items before `position`.
    pub(super) fn drop_before(&mut self, position: u64) {
        while self.first < position && !self.items.is_empty() {
            self.drop_oldest();
        }
        if self.items.is_empty() {
            // Gives back the memory of a burst.
            self.items = VecDeque::new();
        }
    }

    /// The items from `position` on, each with its position.
    pub(super) fn from(&self, position: u64) -> impl Iterator<Item = (u64, &T)> {
        let skip = usize::try_from(position.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let at = self.first.max(position);
        (at..).zip(self.items.iter().skip(skip).map(|(item, _)| item))
    }

    /// The newest item for which `is_it` is true: its position, the item, its bytes and the sum of
    /// bytes.
    pub(super) fn find_last(&mut self, is_it: impl Fn(&T) -> bool) -> Option<(u64, &mut T, &mut usize, &mut usize)> {
        let (first, all) = (self.first, &mut self.bytes);
        let place = self.items.iter().rposition(|(item, _)| is_it(item))?;
        let (item, bytes) = self.items.get_mut(place)?;
        Some((first + place as u64, item, bytes, all))
    }
}

impl Tape<Arc<str>> {
    /// The texts from `cursor` on, as many as fit, and the position behind them.
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

/// The texts that a poll has taken so far.
pub(super) struct Basket {
    pub(super) texts: Vec<Arc<str>>,
    bytes: usize,
    most: Most,
}

impl Basket {
    pub(super) fn new(most: Most) -> Self {
        Self { texts: Vec::new(), bytes: 0, most }
    }

    /// Adds texts that belong together, like the logs of a block. `false` leaves the texts to the
    /// next poll.
    ///
    /// # Errors
    /// When the texts are too long for any poll.
    pub(super) fn put<'a>(&mut self, texts: impl Iterator<Item = &'a Arc<str>>) -> Result<bool, Lack> {
        let (count, before) = (self.texts.len(), self.bytes);
        for text in texts {
            self.bytes += text.len() + COMMA;
            if self.bytes - before > self.most.ever {
                // Behind other texts, this is left to the next poll, which fails.
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
