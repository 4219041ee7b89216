//! A replica's true state, as the replica reports it at each heartbeat.

use serde::{Deserialize, Serialize};

use super::{
    name::{NetworkName, NodeName},
    payload::{FORMAT, Unknown, payload},
    revision::{Epoch, StoreRevision, Term, ViewNumber},
    view::MemberState,
    wish::Applied,
    word::{LayerWord, Role, VerdictWord},
};

/// The highest block, or slot, that a replica has shown to clients of one layer of one network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServedHead {
    /// The network.
    pub network: NetworkName,
    /// The layer.
    pub layer: LayerWord,
    /// The height.
    pub served: u64,
}

/// The node to which a replica sends the calls of one layer of one network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServingNode {
    /// The network.
    pub network: NetworkName,
    /// The layer.
    pub layer: LayerWord,
    /// The node.
    pub node: NodeName,
}

/// A node, whichever replica looks at the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeRef {
    /// The network.
    pub network: NetworkName,
    /// The layer: the two layers of a network may use the same name.
    pub layer: LayerWord,
    /// The node.
    pub node: NodeName,
}

/// A replica's verdict on a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeVerdict {
    /// The node.
    #[serde(flatten)]
    pub node: NodeRef,
    /// The verdict.
    pub verdict: VerdictWord,
    /// The node's last error, redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The replica's own operator has cordoned the node, whatever is wished for all replicas.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cordoned: bool,
}

/// A replica's state. The first one of a life, without an epoch, is the registration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The format's number.
    pub format: u32,
    /// A number that no other process has, chosen at random: tells one's own registration from
    /// another process of the same name. Never compared for order.
    pub process: u64,
    /// The life; none in the registration, whose own revision is the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Counts the heartbeats of the life; 0 is the registration.
    pub sequence: u64,
    /// The standing, as the replica sees that.
    pub state: MemberState,
    /// The part in the election.
    pub role: Role,
    /// The term, while the replica leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
    /// The replica is preferred, may lead, and asks the leader for the lease.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wants_lead: bool,
    /// The operator has drained the replica, which does not lead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drained: bool,
    /// The newest view that the replica has.
    #[serde(default)]
    pub view: ViewNumber,
    /// The heights that clients were shown.
    #[serde(default)]
    pub heads: Vec<ServedHead>,
    /// The nodes that serve.
    #[serde(default)]
    pub serving: Vec<ServingNode>,
    /// The verdicts on all nodes.
    #[serde(default)]
    pub verdicts: Vec<NodeVerdict>,
    /// The wishes of the operator that the replica has taken up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wishes: Vec<Applied>,
    /// The shards of the outbox that the replica owns; none while the replica can take none, as
    /// without an outbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards: Option<u8>,
    /// The version of the program.
    #[serde(default)]
    pub build: String,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub other: Unknown,
}

impl Heartbeat {
    /// The registration of a process.
    pub fn registration(process: u64) -> Self {
        Self {
            format: FORMAT,
            process,
            epoch: None,
            sequence: 0,
            state: MemberState::Joining,
            role: Role::Watching,
            term: None,
            wants_lead: false,
            drained: false,
            view: ViewNumber::default(),
            heads: Vec::new(),
            serving: Vec::new(),
            verdicts: Vec::new(),
            wishes: Vec::new(),
            shards: None,
            build: String::new(),
            other: Unknown::new(),
        }
    }

    /// The epoch of a heartbeat that stands at `revision`.
    pub fn epoch_at(&self, revision: StoreRevision) -> Epoch {
        self.epoch.unwrap_or(revision.into())
    }
}

payload!(Heartbeat, |this| {
    let layers = this.heads.iter().map(|head| &head.layer).chain(this.serving.iter().map(|node| &node.layer));
    let layers = layers.filter(|layer| !layer.is_known()).count();
    let verdicts = this.verdicts.iter().filter(|of| !of.verdict.is_known() || !of.node.layer.is_known()).count();
    let reasons = this.wishes.iter().filter_map(|of| of.last_error.as_ref()).filter(|error| !error.reason.is_known());
    layers + verdicts + reasons.count() + usize::from(!this.state.is_known()) + usize::from(!this.role.is_known())
});
