//! Legal changes of a replica's standing, and of views.

use thiserror::Error;

use crate::domain::fleet::{Epoch, Member, MemberState, ReplicaName, View};

/// The most replicas that have gone and are remembered in a view; the oldest lives are forgotten.
const MOST_GONE: usize = 64;

/// A change that no replica may make.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Illegal {
    /// The standing cannot follow the one before.
    #[error("{replica} cannot become {to} from {from}")]
    Step {
        /// The replica.
        replica: ReplicaName,
        /// The standing before.
        from: MemberState,
        /// The standing that was wished.
        to: MemberState,
    },
    /// The view knows a later life of the replica.
    #[error("{replica} has a later life than {epoch}")]
    OldLife {
        /// The replica.
        replica: ReplicaName,
        /// The earlier life.
        epoch: Epoch,
    },
}

/// Whether one life of a replica may go from `from` to `to` in one step. A replica that failed or
/// left comes back by joining anew.
pub fn can_become(from: &MemberState, to: &MemberState) -> bool {
    use MemberState::{Active, Draining, Failed, Joining, Left};
    matches!(
        (from, to),
        (Joining, Active | Left | Failed)
            | (Active, Draining | Failed)
            | (Draining, Left | Failed)
            | (Failed, Left)
            | (Left, Joining)
    )
}

/// The view after that life of `replica` has become `to`.
///
/// # Errors
/// The step is not legal, or a later life of the replica is known.
pub fn with(view: &View, replica: &ReplicaName, epoch: Epoch, to: MemberState) -> Result<View, Illegal> {
    let known = view.members.get(replica);
    let from = match known {
        Some(member) if member.epoch > epoch => return Err(Illegal::OldLife { replica: replica.clone(), epoch }),
        Some(member) if member.epoch == epoch => member.state.clone(),
        // A new life has registered, and is in no view yet.
        _ => MemberState::Joining,
    };
    if !can_become(&from, &to) {
        return Err(Illegal::Step { replica: replica.clone(), from, to });
    }
    let other = known.map(|member| member.other.clone()).unwrap_or_default();
    let mut view = view.clone();
    view.members.insert(replica.clone(), Member { epoch, state: to, other });
    let gone = |member: &Member| matches!(member.state, MemberState::Left | MemberState::Failed);
    let mut lives: Vec<_> = view.members.values().filter(|member| gone(member)).map(|member| member.epoch).collect();
    lives.sort_unstable();
    let forgotten = lives.len().saturating_sub(MOST_GONE);
    if let Some(oldest_kept) = lives.get(forgotten) {
        view.members.retain(|_, member| !gone(member) || member.epoch >= *oldest_kept);
    }
    view.carry();
    Ok(view)
}

/// A change of one replica between two views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// The replica.
    pub replica: ReplicaName,
    /// The life that the new standing is of.
    pub epoch: Epoch,
    /// The standing before; none of a life that was in no view.
    pub from: Option<MemberState>,
    /// The standing from now on; none where the view has forgotten the replica.
    pub to: Option<MemberState>,
}

/// The changes between two views, in the order of the names.
pub fn changes(before: &View, after: &View) -> Vec<MemberChange> {
    let names: std::collections::BTreeSet<_> = before.members.keys().chain(after.members.keys()).collect();
    let change = |replica: &ReplicaName| {
        let (old, new) = (before.members.get(replica), after.members.get(replica));
        let epoch = new.or(old)?.epoch;
        let from = old.filter(|old| old.epoch == epoch).map(|old| old.state.clone());
        let to = new.map(|new| new.state.clone());
        (from != to).then(|| MemberChange { replica: replica.clone(), epoch, from, to })
    };
    names.into_iter().filter_map(change).collect()
}
