//! A least rate, as time that is used up by waiting and earned back by bytes.
//!
//! A deadline on each piece alone lets a peer go on for ever with a byte now and then; a deadline
//! on the whole would cut off a client with much to send over a thin line. So a peer may stand
//! still for as long as the time lasts, and in the long run has to keep a rate.

use std::time::Duration;

/// Bytes in a second that a client has to move in the long run, both ways. The thinnest line that
/// is in use moves more, and ten thousand clients at this rate use the memory that they hold.
pub const CLIENT_RATE: u32 = 1024;
/// The same for a node's answer. Nodes that trace write a little at a time while they work.
pub const NODE_RATE: u32 = 64;

/// The time that one peer has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    left: Duration,
    standstill: Duration,
    rate: u32,
}

impl Pace {
    /// A peer may stand still for `standstill`, and has to move `rate` bytes in a second in the
    /// long run.
    pub fn new(standstill: Duration, rate: u32) -> Self {
        Self { left: standstill, standstill, rate }
    }

    /// For how long the peer may still stand still.
    pub fn left(&self) -> Duration {
        self.left
    }

    /// So many bytes moved after so long a wait.
    pub fn moved(&mut self, waited: Duration, bytes: usize) {
        let earned = Duration::from_secs_f64(bytes as f64 / f64::from(self.rate));
        self.left = (self.left.saturating_sub(waited).saturating_add(earned)).min(self.standstill);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn drops_use_up_the_time_and_a_stream_does_not() {
        let mut drip = Pace::new(20 * SECOND, 1000);
        let mut stream = drip;
        for _ in 0..10 {
            drip.moved(SECOND, 1);
            stream.moved(19 * SECOND, 19_000);
        }
        assert!(drip.left() > 9 * SECOND && drip.left() < 11 * SECOND, "{drip:?}");
        assert_eq!(stream.left(), 20 * SECOND);
        drip.moved(11 * SECOND, 1);
        assert!(drip.left() < SECOND / 100);
    }

    #[test]
    fn no_client_saves_up_more_than_the_time() {
        let mut pace = Pace::new(20 * SECOND, 1000);
        pace.moved(Duration::ZERO, usize::MAX);
        assert_eq!(pace.left(), 20 * SECOND);
    }
}
