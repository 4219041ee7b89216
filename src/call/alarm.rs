//! A timer that is moved only when it goes off too early.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that moves with every call. The timer stays at the first deadline and is moved only
/// when it goes off before the present one. A client's next call, whose deadline is later, then
/// costs no timer operation.
#[derive(Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Completes at `due`.
    pub fn at(&mut self, due: Instant) -> Due<'_> {
        Due { alarm: self, due }
    }
}

/// The wait for one deadline.
pub struct Due<'a> {
    alarm: &'a mut Alarm,
    due: Instant,
}

impl Future for Due<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let due = self.due;
        let sleep = self.alarm.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn alarm_goes_off_at_each_deadline_later_or_sooner() {
        let start = Instant::now();
        let mut alarm = Alarm::default();
        for millis in [100, 500, 300, 900, 900, 50] {
            let due = start + Duration::from_millis(millis);
            let before = Instant::now();
            alarm.at(due).await;
            assert_eq!(Instant::now(), due.max(before), "{millis}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_given_up_leaves_no_early_alarm_behind() {
        let start = Instant::now();
        let mut alarm = Alarm::default();
        tokio::select! {
            biased;
            () = alarm.at(start + Duration::from_secs(1)) => panic!("too early"),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
        alarm.at(start + Duration::from_secs(3)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(3));
    }
}
