//! Connecting to whichever of several addresses answers first (RFC 8305).

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

/// How long one address is tried before the next is tried beside it.
const DELAY: Duration = Duration::from_millis(250);

/// Tries the `addresses` in their order, each next one when the one before has failed or has not
/// answered for a while. The first connection wins, and the other attempts are dropped.
///
/// # Errors
/// When all have failed: with the error that tells most.
pub(super) async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<(SocketAddr, T)>
where
    F: Future<Output = io::Result<T>>,
{
    let mut left = addresses.into_iter().peekable();
    let mut running = FuturesUnordered::new();
    let mut failed: Option<io::Error> = None;
    loop {
        if let Some(address) = left.next() {
            let attempt = connect(address);
            running.push(async move { (address, attempt.await) });
        }
        // Both arms are cancel-safe: attempts stay in their set.
        tokio::select! {
            biased;
            next = running.next() => match next {
                Some((address, Ok(connection))) => return Ok((address, connection)),
                Some((_, Err(error))) => {
                    let is_more = failed.as_ref().is_none_or(|before| weight(before) <= weight(&error));
                    failed = if is_more { Some(error) } else { failed };
                }
                None => return Err(failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())),
            },
            () = sleep(DELAY), if left.peek().is_some() => {}
        }
    }
}

/// How much an error tells of the node: that there is no way to an address may be for want of its
/// family here.
fn weight(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::AddrNotAvailable => 0,
        io::ErrorKind::ConnectionRefused => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending};

    use tokio::time::Instant;

    use super::*;

    #[derive(Clone, Copy)]
    enum Does {
        Nothing,
        Answers(u64),
        Fails(u64, io::ErrorKind),
    }

    /// Races addresses, each of which behaves as told after some milliseconds. Returns the winner's
    /// number, when each was tried, and how long the race took, in milliseconds.
    async fn raced(does: &[Does]) -> (Result<u16, io::ErrorKind>, Vec<u128>, u128) {
        let start = Instant::now();
        let tried = RefCell::new(Vec::new());
        let addresses = (0..does.len()).map(|n| SocketAddr::from(([127, 0, 0, 1], n as u16))).collect();
        let won = race(addresses, |address| {
            tried.borrow_mut().push(start.elapsed().as_millis());
            let does = does[usize::from(address.port())];
            async move {
                match does {
                    Does::Nothing => pending().await,
                    Does::Answers(after) => {
                        sleep(Duration::from_millis(after)).await;
                        Ok(())
                    }
                    Does::Fails(after, kind) => {
                        sleep(Duration::from_millis(after)).await;
                        Err(kind.into())
                    }
                }
            }
        })
        .await;
        let won = won.map(|(address, ())| address.port()).map_err(|error| error.kind());
        (won, tried.into_inner(), start.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_connection_wins_and_the_most_telling_error_is_told() {
        use Does::{Answers, Fails, Nothing};
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
        for (does, won, tried, took) in [
            (&[Answers(10)][..], Ok(0), &[0][..], 10),
            (&[Answers(249), Answers(1)], Ok(0), &[0], 249),
            (&[Nothing, Answers(10)], Ok(1), &[0, 250], 260),
            (&[Answers(400), Answers(300)], Ok(0), &[0, 250], 400),
            (&[Nothing, Nothing, Answers(10)], Ok(2), &[0, 250, 500], 510),
            (&[Fails(5, ConnectionRefused), Answers(10)], Ok(1), &[0, 5], 15),
            (&[Nothing, Fails(5, ConnectionRefused), Answers(1)], Ok(2), &[0, 250, 255], 256),
            (&[Fails(5, ConnectionRefused), Fails(5, NetworkUnreachable)], Err(ConnectionRefused), &[0, 5], 10),
            (&[Fails(5, HostUnreachable), Fails(5, TimedOut)], Err(TimedOut), &[0, 5], 10),
            (&[Fails(300, TimedOut), Fails(1, HostUnreachable)], Err(TimedOut), &[0, 250], 300),
            (&[], Err(io::ErrorKind::AddrNotAvailable), &[], 0),
        ] {
            assert_eq!(raced(does).await, (won, tried.to_vec(), took));
        }
    }
}
