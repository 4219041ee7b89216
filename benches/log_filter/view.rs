//! The path under which the files of the filter expect to be.

pub(crate) mod logs;
