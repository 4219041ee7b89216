//! Counts the filters of each client and their bytes, so that no client takes the room of others.

use std::collections::BTreeMap;

use crate::{
    config,
    domain::{client::Peer, refusal::Refusal},
};

/// The usage of each client, by its address.
#[derive(Debug, Default)]
pub(super) struct Clients(BTreeMap<Peer, Usage>);

#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    filters: usize,
    bytes: usize,
}

impl Clients {
    /// Checks whether a client may have one more filter of `bytes` bytes.
    ///
    /// # Errors
    /// Names the limit that the filter would pass.
    pub(super) fn check(&self, client: Option<Peer>, bytes: usize, settings: &config::Filters) -> Result<(), Refusal> {
        let Some(client) = client else { return Ok(()) };
        let usage = self.0.get(&client.block()).copied().unwrap_or_default();
        let (most, most_bytes) = (settings.max_per_client.get(), settings.max_bytes_per_client);
        if usage.filters >= most {
            return Err(Refusal::Limit { name: "filters.max_per_client", limit: most });
        }
        if usage.bytes.saturating_add(bytes) > most_bytes {
            return Err(Refusal::Limit { name: "filters.max_bytes_per_client", limit: most_bytes });
        }
        Ok(())
    }

    pub(super) fn add(&mut self, client: Option<Peer>, bytes: usize) {
        if let Some(client) = client {
            let usage = self.0.entry(client.block()).or_default();
            usage.filters += 1;
            usage.bytes += bytes;
        }
    }

    pub(super) fn remove(&mut self, client: Option<Peer>, bytes: usize) {
        let Some(client) = client.map(Peer::block) else { return };
        let Some(usage) = self.0.get_mut(&client) else { return };
        usage.filters -= 1;
        usage.bytes -= bytes;
        if usage.filters == 0 {
            self.0.remove(&client);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn a_client_has_so_many_filters_and_bytes_and_no_more() {
        let max_per_client = NonZeroUsize::new(2).unwrap();
        let settings = config::Filters { max_per_client, max_bytes_per_client: 100, ..config::Filters::default() };
        let mut clients = Clients::default();
        let [one, beside, other] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse().ok().map(Peer::Ip));
        let refused = |clients: &Clients, client, bytes| match clients.check(client, bytes, &settings) {
            Ok(()) => "",
            Err(refusal) => refusal.reason(),
        };
        clients.add(one, 60);
        assert_eq!(refused(&clients, one, 40), "");
        assert_eq!(refused(&clients, beside, 41), "filters.max_bytes_per_client", "a host has a whole block");
        assert_eq!((refused(&clients, other, 100), refused(&clients, None, 1000)), ("", ""));
        clients.add(beside, 10);
        assert_eq!(refused(&clients, one, 1), "filters.max_per_client");
        clients.remove(one, 60);
        assert_eq!(refused(&clients, one, 90), "");
        clients.remove(beside, 10);
        assert!(clients.0.is_empty());
    }
}
