//! New heads: the headers of the blocks that become canonical, as the nodes write them.

use std::sync::Arc;

use super::audience::Audience;
use crate::chain::Change;

/// Notifies subscribers of each new block, oldest first.
pub(super) async fn tell(audience: &Arc<Audience<()>>, change: &Change) {
    audience.announce(change.seq);
    let headers = change.added.iter().filter_map(|block| std::str::from_utf8(&block.header).ok());
    let headers: Arc<[Arc<str>]> = headers.map(Arc::from).collect();
    audience.tell(change.seq, move |()| headers.clone()).await;
}
