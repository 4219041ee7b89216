//! What the measurement's node and clients have in common beside frames: finding a value in JSON that is known, the clock, and orders.

use std::io;

use tokio::sync::mpsc;

/// The JSON scalar that follows `key`, as it stands.
pub(crate) fn raw<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let rest = text[memchr::memmem::find(text, key)? + key.len()..].trim_ascii_start();
    let end = if rest.first() == Some(&b'"') {
        1 + memchr::memchr(b'"', &rest[1..])? + 1
    } else {
        rest.iter().position(|b| matches!(b, b',' | b'}' | b']') || b.is_ascii_whitespace())?
    };
    Some(&rest[..end])
}

/// The number that follows `key` as a hex string.
pub(crate) fn hex(text: &[u8], key: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(raw(text, key)?).ok()?.trim_matches('"').strip_prefix("0x")?;
    u64::from_str_radix(digits, 16).ok()
}

/// Nanoseconds since 1970: the one clock that the node and the clients share.
pub(crate) fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64)
}

/// What is said on standard input, line by line; the end of it ends the channel.
pub(crate) fn orders() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
