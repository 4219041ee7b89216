//! File descriptors, of which the system gives a process so many.

use std::io;

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Raises the limit on open files as far as the process may, and returns the new limit; `None`: no
/// limit.
pub fn raise() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // If the system refuses, the present limit must do.
    let reached = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    reached.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Whether something failed because there are no descriptors left, for the process or on the
/// machine.
pub fn are_used_up(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|used_up| error.raw_os_error() == Some(used_up.raw_os_error()))
}
