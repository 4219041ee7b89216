//! The pauses of what every node that seemed to serve has failed.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(250);
/// The same for calls that a node got and gave no answer to: each try is work for the node.
const FIRST_SLOW: Duration = Duration::from_millis(100);
const LONGEST_SLOW: Duration = Duration::from_secs(2);

/// How long the next pause is, and the longest; each is twice the one before.
pub(super) struct Pause(Duration, Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST, LONGEST)
    }
}

impl Pause {
    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(self.1);
        pause
    }

    /// From now on pauses are long.
    pub(super) fn slow_down(&mut self) {
        (self.0, self.1) = (self.0.max(FIRST_SLOW), LONGEST_SLOW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut pause = Pause::default();
        let pauses: Vec<u128> = (0..7).map(|_| pause.next().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 250, 250]);
        let mut pause = Pause::default();
        let pauses: Vec<u128> = (0..7)
            .map(|_| {
                pause.slow_down();
                pause.next().as_millis()
            })
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
    }
}
