//! The folder of an outbox, which goes with the pretend chain.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
};

/// Names for the folder of the outbox that are tried.
const NAMES: usize = 100;

/// A folder for the outbox, which goes with the pretend chain: no other has these transactions.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new() -> io::Result<Self> {
        // In a container the process has the same number after each start, and a process that was
        // killed left its folder.
        let names = (0..NAMES).map(|count| format!("steadfast-dev-{}-{count}", std::process::id()));
        let mut taken = None;
        for path in names.map(|name| std::env::temp_dir().join(name)) {
            // A name that somebody else has taken is not used.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(taken.unwrap_or_else(|| io::ErrorKind::AlreadyExists.into()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let folder = self.0.display();
        match fs::remove_dir_all(&self.0) {
            Ok(()) => {
                tracing::info!(%folder, "the outbox's folder is removed: its transactions go with the pretend chain")
            }
            Err(error) => tracing::warn!(%folder, %error, "the outbox's folder is left"),
        }
    }
}
