//! Reads the admin side's stream of snapshots, and opens the stream again after its end.

use std::{error::Error, time::Duration};

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::model::Snapshot;
use crate::cli::admin::AdminUrl;

/// A snapshot comes each second at least; without one for so long the stream is lost.
const SILENCE: Duration = Duration::from_secs(5);
/// The time between two attempts to open the stream.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// The longest snapshot, in bytes: of some hundred nodes.
const MAX_SNAPSHOT: usize = 8 << 20;

/// News of the proxy.
pub(super) enum News {
    /// A snapshot came.
    Snapshot(Box<Snapshot>),
    /// No snapshots come, for a reason.
    Away(String),
}

/// Tells news until the receiver is gone.
pub(super) async fn read(url: AdminUrl, news: mpsc::Sender<News>) {
    while !news.is_closed() {
        let why = follow(&url, &news).await;
        if news.send(News::Away(why)).await.is_err() {
            return;
        }
        sleep(RECONNECT_PAUSE).await;
    }
}

/// Tells the snapshots of one stream until its end. Returns the reason for the end.
async fn follow(url: &AdminUrl, news: &mpsc::Sender<News>) -> String {
    let told = |error: reqwest::Error| {
        let error = error.without_url();
        let causes = std::iter::successors(Some(&error as &dyn Error), |&error| error.source());
        causes.last().map_or_else(String::new, ToString::to_string)
    };
    let client = match crate::net::post::plain().connect_timeout(SILENCE).build() {
        Ok(client) => client,
        Err(error) => return told(error),
    };
    let opened = timeout(SILENCE, client.get(url.with("/events")).send()).await;
    let mut stream = match opened {
        Err(_) => return format!("no answer within {SILENCE:?}"),
        Ok(Err(error)) => return told(error),
        Ok(Ok(stream)) if !stream.status().is_success() => {
            return format!("HTTP status {}: is this a proxy's admin.listen?", stream.status());
        }
        Ok(Ok(stream)) => stream,
    };
    let mut text = Events::default();
    loop {
        let piece = match timeout(SILENCE, stream.chunk()).await {
            Err(_) => return format!("no news for {SILENCE:?}"),
            Ok(Err(error)) => return told(error),
            Ok(Ok(None)) => return "the stream has ended".to_owned(),
            Ok(Ok(Some(piece))) => piece,
        };
        if text.add(&piece).is_err() {
            return "a snapshot is too long".to_owned();
        }
        while let Some(data) = text.next() {
            let snapshot = match serde_json::from_slice(&data) {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    return format!("a snapshot that is not understood ({error}): is the proxy of another version?");
                }
            };
            if news.send(News::Snapshot(snapshot)).await.is_err() {
                return String::new();
            }
        }
    }
}

/// The text of a stream of events, without the events that were taken.
#[derive(Default)]
struct Events {
    text: Vec<u8>,
}

impl Events {
    fn add(&mut self, piece: &[u8]) -> Result<(), ()> {
        self.text.extend_from_slice(piece);
        if self.text.len() > MAX_SNAPSHOT { Err(()) } else { Ok(()) }
    }

    /// The data of the next whole event.
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let end = self.text.windows(2).position(|pair| pair == b"\n\n")?;
            let event: Vec<u8> = self.text.drain(..end + 2).collect();
            if let Some(data) = event.strip_prefix(b"data: ") {
                return Some(data[..data.len() - 2].to_vec());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_put_together_from_pieces() {
        let mut events = Events::default();
        for piece in ["da", "ta: {\"a\":1}\n", "\n: remark\n\ndata: 2\n\nda"] {
            events.add(piece.as_bytes()).unwrap();
        }
        assert_eq!(events.next().as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(events.next().as_deref(), Some(&b"2"[..]));
        assert_eq!(events.next(), None);
        assert!(events.add(&vec![b'x'; MAX_SNAPSHOT]).is_err());
    }
}
