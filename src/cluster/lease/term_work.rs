//! The work that only a leader does, and the hooks of promotion and fencing, in one slot each.

use super::{
    super::moment::Moment,
    effect::{Effect, HookKind, Turn},
};
use crate::domain::fleet::Term;

/// How far the work is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Work {
    /// No effect is under way.
    #[default]
    Idle,
    /// Effects begin and end.
    Running,
    /// Effects end.
    Stopping {
        /// When the rest is aborted; none while the lease gives time.
        abort_at: Option<Moment>,
    },
    /// Effects are aborted.
    Aborting {
        /// When the fence has failed.
        until: Moment,
    },
    /// Effects were aborted and did not end.
    Stuck,
}

/// How far a hook is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Hook {
    #[default]
    None,
    Running {
        hook: u64,
        kind: HookKind,
        until: Moment,
    },
    Ended {
        kind: HookKind,
        is_ok: bool,
    },
}

/// A hook that is to be run: number, term, and the longest run in milliseconds.
pub(super) type Run = (u64, Term, u64);

/// The work and the hook of a term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct TermWork {
    work: Work,
    hook: Hook,
    /// The time that aborted work has to end.
    margin: u64,
}

impl TermWork {
    /// The term begins, or goes on.
    pub(super) fn begin(&mut self, turn: &mut Turn, now: Moment, run: Run) {
        self.work = Work::Running;
        turn.effects.push(Effect::BeginWork { term: run.1 });
        // A hook that has run for this term need not run again.
        if self.hook == Hook::None {
            self.run(turn, now, HookKind::Lead, run);
        }
    }

    /// The work comes to an end in its own time, or is aborted half of `margin` from now.
    pub(super) fn stop(&mut self, turn: &mut Turn, now: Moment, margin: Option<u64>) {
        let abort_at = margin.map(|margin| now.after(margin / 2));
        match &mut self.work {
            Work::Running => {
                self.work = Work::Stopping { abort_at };
                turn.effects.push(Effect::StopWork { abort: false });
            }
            Work::Stopping { abort_at: at } => *at = at.or(abort_at),
            Work::Idle | Work::Aborting { .. } | Work::Stuck => {}
        }
        if let Hook::Running { hook, kind: HookKind::Lead, .. } = self.hook {
            turn.effects.push(Effect::AbortHook { hook });
            self.hook = Hook::None;
        }
    }

    /// The work ends at once, and the hook that fences runs beside.
    pub(super) fn fence(&mut self, turn: &mut Turn, now: Moment, margin: u64, run: Run) {
        self.margin = margin;
        self.stop(turn, now, Some(margin));
        if !self.has_begun_fence_hook() {
            self.run(turn, now, HookKind::Fence, run);
        }
    }

    /// Runs a hook in the one slot there is.
    pub(super) fn run(&mut self, turn: &mut Turn, now: Moment, kind: HookKind, (hook, term, timeout): Run) {
        debug_assert!(!matches!(self.hook, Hook::Running { .. }), "two hooks would run at once");
        self.hook = Hook::Running { hook, kind, until: now.after(timeout) };
        turn.effects.push(Effect::RunHook { hook, kind, term });
    }

    /// No effect is under way any more.
    pub(super) fn drained(&mut self) {
        if self.work != Work::Running {
            self.work = Work::Idle;
        }
    }

    /// A hook ended. The answer of an aborted one comes to nothing.
    pub(super) fn hook_done(&mut self, number: u64, is_ok: bool) {
        if let Hook::Running { hook, kind, .. } = self.hook
            && hook == number
        {
            self.hook = Hook::Ended { kind, is_ok };
        }
    }

    /// Notes the time: aborts work and hooks that are too late.
    pub(super) fn tick(&mut self, turn: &mut Turn, now: Moment) {
        match self.work {
            Work::Stopping { abort_at: Some(at) } if now >= at => {
                // At once after a long pause too: the work must have a moment to end.
                self.work = Work::Aborting { until: now.after((self.margin / 2).max(1)) };
                turn.effects.push(Effect::StopWork { abort: true });
            }
            Work::Aborting { until } if now >= until => self.work = Work::Stuck,
            _ => {}
        }
        if let Hook::Running { hook, kind, until } = self.hook
            && now >= until
        {
            turn.effects.push(Effect::AbortHook { hook });
            self.hook = Hook::Ended { kind, is_ok: false };
        }
    }

    /// When time alone changes something.
    pub(super) fn next_due(&self) -> Option<Moment> {
        let work = match self.work {
            Work::Stopping { abort_at } => abort_at,
            Work::Aborting { until } => Some(until),
            _ => None,
        };
        let hook = match self.hook {
            Hook::Running { until, .. } => Some(until),
            _ => None,
        };
        work.into_iter().chain(hook).min()
    }

    /// The term's duties are behind: the slots are free for another term.
    pub(super) fn rest(&mut self) {
        debug_assert!(self.is_over() || self.is_idle(), "work or a hook goes on");
        *self = Self::default();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.work == Work::Idle && self.hook == Hook::None
    }

    pub(super) fn is_drained(&self) -> bool {
        self.work == Work::Idle
    }

    /// The work has ended, and the hook that fences has run, or there was no term.
    pub(super) fn is_over(&self) -> bool {
        let hook = matches!(self.hook, Hook::None | Hook::Ended { kind: HookKind::Fence, is_ok: true });
        self.work == Work::Idle && hook
    }

    pub(super) fn has_failed(&self) -> bool {
        self.work == Work::Stuck || self.has_fence_hook_failed()
    }

    pub(super) fn has_lead_hook_failed(&self) -> bool {
        self.hook == Hook::Ended { kind: HookKind::Lead, is_ok: false }
    }

    pub(super) fn has_lead_hook_run(&self) -> bool {
        self.hook == Hook::Ended { kind: HookKind::Lead, is_ok: true }
    }

    pub(super) fn has_fence_hook_failed(&self) -> bool {
        self.hook == Hook::Ended { kind: HookKind::Fence, is_ok: false }
    }

    pub(super) fn has_fence_hook_run(&self) -> bool {
        self.hook == Hook::Ended { kind: HookKind::Fence, is_ok: true }
    }

    pub(super) fn has_begun_fence_hook(&self) -> bool {
        matches!(self.hook, Hook::Running { kind: HookKind::Fence, .. } | Hook::Ended { kind: HookKind::Fence, .. })
    }

    /// The same with moments counted from `now`, for the model.
    #[cfg(test)]
    pub(super) fn relative_to(mut self, now: Moment) -> Self {
        let from_now = |at: Moment| Moment(at.since(now));
        match &mut self.work {
            Work::Stopping { abort_at } => *abort_at = abort_at.map(from_now),
            Work::Aborting { until } => *until = from_now(*until),
            Work::Idle | Work::Running | Work::Stuck => {}
        }
        if let Hook::Running { until, .. } = &mut self.hook {
            *until = from_now(*until);
        }
        self
    }
}
