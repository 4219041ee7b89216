//! The faults of one node at one moment.

use std::{mem::discriminant, time::Duration};

use super::{Fault, History, Program, Store, is_probe};
use crate::devnet::{rpc::Label, view::View};

/// The faults that are set at one moment.
#[derive(Clone, Default)]
pub(in crate::devnet) struct Faults {
    pub(super) list: Vec<Fault>,
    /// The node's view at the moment when [`Fault::Freeze`] was set.
    pub(super) frozen: Option<View>,
}

impl Faults {
    pub(in crate::devnet) fn list(&self) -> &[Fault] {
        &self.list
    }

    /// Adds a fault and removes an earlier one of the same kind. `view` is the node's present one.
    pub(in crate::devnet) fn set(&mut self, fault: Fault, view: View) {
        if fault == Fault::Freeze {
            self.frozen = Some(view);
        }
        self.list.retain(|other| discriminant(other) != discriminant(&fault));
        self.list.push(fault);
    }

    /// Removes the fault of this name.
    pub(in crate::devnet) fn unset(&mut self, name: &str) {
        self.list.retain(|fault| fault.name() != name);
        if !self.has(&Fault::Freeze) {
            self.frozen = None;
        }
    }

    pub(in crate::devnet) fn has(&self, fault: &Fault) -> bool {
        self.list.contains(fault)
    }

    pub(in crate::devnet) fn none(&self) -> bool {
        self.list.is_empty()
    }

    pub(in crate::devnet) fn frozen(&self) -> Option<&View> {
        self.frozen.as_ref()
    }

    pub(in crate::devnet) fn hang(&self) -> bool {
        self.has(&Fault::Hang)
    }

    pub(in crate::devnet) fn down(&self) -> bool {
        self.has(&Fault::Down)
    }

    pub(in crate::devnet) fn mute(&self) -> bool {
        self.has(&Fault::Mute)
    }

    pub(in crate::devnet) fn lag(&self) -> u64 {
        self.find(|fault| if let Fault::Lag { blocks } = fault { Some(*blocks) } else { None }).unwrap_or(0)
    }

    pub(in crate::devnet) fn late(&self) -> Duration {
        let ms = self.find(|fault| if let Fault::Late { ms } = fault { Some(*ms) } else { None });
        Duration::from_millis(ms.unwrap_or(0))
    }

    pub(in crate::devnet) fn branch(&self) -> bool {
        self.list.iter().any(|fault| matches!(fault, Fault::Branch { .. }))
    }

    pub(in crate::devnet) fn lie(&self) -> u64 {
        self.find(|fault| if let Fault::Lie { blocks } = fault { Some(*blocks) } else { None }).unwrap_or(0)
    }

    pub(in crate::devnet) fn slow(&self) -> Duration {
        let ms = self.find(|fault| if let Fault::Slow { ms } = fault { Some(*ms) } else { None });
        Duration::from_millis(ms.unwrap_or(0))
    }

    pub(in crate::devnet) fn max_connections(&self) -> Option<u64> {
        self.find(|fault| if let Fault::MaxConnections { connections } = fault { Some(*connections) } else { None })
    }

    pub(in crate::devnet) fn chain_id(&self) -> Option<u64> {
        self.find(|fault| if let Fault::WrongChain { chain_id } = fault { Some(*chain_id) } else { None })
    }

    pub(in crate::devnet) fn network_id(&self) -> Option<u64> {
        self.find(|fault| if let Fault::NetworkId { id } = fault { Some(*id) } else { None })
    }

    pub(in crate::devnet) fn rpc_error(&self) -> Option<(i64, &str)> {
        self.find(|fault| match fault {
            Fault::RpcError { code, message } => Some((*code, message.as_str())),
            _ => None,
        })
    }

    /// Whether every request is refused without being executed.
    pub(in crate::devnet) fn refuses(&self) -> bool {
        [Fault::Failing, Fault::Garbage].iter().any(|fault| self.has(fault))
            || self.rate_limited().is_some()
            || self.rpc_error().is_some()
    }

    /// The seconds after which a client may come again.
    pub(in crate::devnet) fn rate_limited(&self) -> Option<u64> {
        self.find(|fault| if let Fault::RateLimited { retry_after } = fault { Some(*retry_after) } else { None })
    }

    /// The credits that come back in a second, those that can be spent at once, and the seconds
    /// after which a client may come again.
    pub(in crate::devnet) fn credits(&self) -> Option<(u64, u64, Option<u64>)> {
        self.find(|fault| match fault {
            Fault::Credits { per_second, burst, retry_after } => Some((*per_second, *burst, *retry_after)),
            _ => None,
        })
    }

    pub(in crate::devnet) fn has_no_quota(&self, method: &str, params: &str) -> bool {
        let methods = self.find(|fault| if let Fault::Quota { methods } = fault { Some(methods) } else { None });
        methods.is_some_and(|named| is_named(named, method, params))
    }

    pub(in crate::devnet) fn does_not_offer(&self, method: &str, params: &str) -> bool {
        let methods = self.find(|fault| if let Fault::NotOffered { methods } = fault { Some(methods) } else { None });
        methods.is_some_and(|named| is_named(named, method, params))
    }

    pub(in crate::devnet) fn cuts(&self, method: &str, params: &str) -> bool {
        let methods = self.find(|fault| if let Fault::CutAnswer { methods } = fault { Some(methods) } else { None });
        methods.is_some_and(|named| is_named(named, method, params))
    }

    /// The kind of id that the answer to a call of `method` carries.
    pub(in crate::devnet) fn label(&self, method: &str, params: &str) -> Label {
        let spoilt = self.find(|fault| match fault {
            Fault::AlienId { methods } if is_named(methods, method, params) => Some(Label::Alien),
            Fault::NoId { methods } if is_named(methods, method, params) => Some(Label::Absent),
            _ => None,
        });
        spoilt.unwrap_or(Label::Own)
    }

    /// How many of the newest blocks are answered with `null`.
    pub(in crate::devnet) fn nulls(&self) -> u64 {
        self.find(|fault| if let Fault::Nulls { blocks } = fault { Some(*blocks) } else { None }).unwrap_or(0)
    }

    /// The number of notifications before the answer to a subscription, and right behind the
    /// answer.
    pub(in crate::devnet) fn eager(&self) -> (u64, u64) {
        self.find(|fault| if let Fault::Eager { before, after } = fault { Some((*before, *after)) } else { None })
            .unwrap_or((0, 0))
    }

    /// Whether calls of this method are refused.
    pub(in crate::devnet) fn refuses_method(&self, method: &str) -> bool {
        let methods = self.find(|fault| if let Fault::Refuse { methods } = fault { Some(methods) } else { None });
        methods.is_some_and(|methods| methods.iter().any(|name| name == method))
    }

    /// The result that [`Fault::Tells`] gives calls of this method.
    pub(in crate::devnet) fn tells(&self, called: &str) -> Option<&serde_json::Value> {
        self.find(|fault| match fault {
            Fault::Tells { method, result } => Some((method, result)),
            _ => None,
        })
        .filter(|(method, _)| *method == called)
        .map(|(_, result)| result)
    }

    pub(in crate::devnet) fn logs_limit(&self) -> Option<u64> {
        self.find(|fault| if let Fault::LogsLimit { most } = fault { Some(*most) } else { None })
    }

    pub(in crate::devnet) fn missing_block(&self) -> Option<u64> {
        self.find(|fault| if let Fault::MissingBlock { number } = fault { Some(*number) } else { None })
    }

    pub(in crate::devnet) fn missing_logs(&self) -> Option<u64> {
        self.find(|fault| if let Fault::MissingLogs { number } = fault { Some(*number) } else { None })
    }

    /// The status that [`Fault::HttpStatus`] gives requests of this method.
    pub(in crate::devnet) fn http_status(&self, method: &str, params: &str) -> Option<u16> {
        self.find(|fault| match fault {
            Fault::HttpStatus { status, methods } if is_named(methods, method, params) => Some(*status),
            _ => None,
        })
    }

    pub(in crate::devnet) fn hangs_over(&self, method: &str, params: &str) -> bool {
        let methods = self.find(|fault| if let Fault::HangOver { methods } = fault { Some(methods) } else { None });
        methods.is_some_and(|named| is_named(named, method, params))
    }

    /// The delay that [`Fault::SlowOver`] adds to answers of this method.
    pub(in crate::devnet) fn slow_over(&self, method: &str, params: &str) -> Duration {
        let ms = self.find(|fault| match fault {
            Fault::SlowOver { ms, methods } if is_named(methods, method, params) => Some(*ms),
            _ => None,
        });
        Duration::from_millis(ms.unwrap_or(0))
    }

    /// The status that the gateway of [`Fault::Gateway`] answers requests of this method with.
    pub(in crate::devnet) fn gateway(&self, method: &str, params: &str) -> Option<u16> {
        self.find(|fault| match fault {
            Fault::Gateway { status, methods } if is_named(methods, method, params) => Some(*status),
            _ => None,
        })
    }

    /// For how many slots below the head the node keeps `store`; none: for all.
    pub(in crate::devnet) fn keeps(&self, store: Store) -> Option<u64> {
        self.find(|fault| match fault {
            Fault::Pruned { slots, what } if what.is_empty() || what.contains(&store) => Some(*slots),
            _ => None,
        })
    }

    /// How many of the newest blocks the node keeps `history` of, by which program; none: of all.
    pub(in crate::devnet) fn depth(&self, history: History) -> Option<(u64, Program)> {
        self.find(|fault| match fault {
            Fault::Depth { blocks, program, what }
                if what.contains(&history) || (what.is_empty() && history == History::State) =>
            {
                Some((*blocks, *program))
            }
            _ => None,
        })
    }

    /// How many blobs of each block the node has; none: all.
    pub(in crate::devnet) fn blobs_left(&self) -> Option<u64> {
        self.find(|fault| if let Fault::FewBlobs { left } = fault { Some(*left) } else { None })
    }

    fn find<'a, T: 'a>(&'a self, pick: impl Fn(&'a Fault) -> Option<T>) -> Option<T> {
        self.list.iter().find_map(pick)
    }
}

fn is_named(named: &[String], method: &str, params: &str) -> bool {
    let is_meant = |name: &String| match name.strip_suffix('*') {
        Some(beginning) => method.starts_with(beginning),
        None => name == method,
    };
    if named.is_empty() { !is_probe(method, params) } else { named.iter().any(is_meant) }
}
