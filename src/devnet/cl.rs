//! A consensus node's port: the beacon API over REST, and its events.

use std::sync::Arc;

use super::{gate::Gate, node::Node};

/// Serves one connection until it ends.
pub(super) async fn serve(_node: Arc<Node>, _io: Gate) {}
