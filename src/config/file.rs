//! Files that the settings are read from, each of which has a bound.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Reads the file at `path`, which may be a pipe: a shell's `<(…)`.
///
/// # Errors
/// Says why the file cannot be read, or that the file is too long.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: io::Error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE { Err(format!("is longer than {MAX_FILE} bytes")) } else { Ok(bytes) }
}

/// Whether `path` is a file that can be read at any time: no pipe, which may wait for a writer, and
/// no device, which may have no end.
///
/// # Errors
/// Names the fault of the file.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let file = path.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    if file.is_file() { Ok(()) } else { Err("is no regular file".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_left_at_the_bound() {
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err(), "is longer than 1048576 bytes");
        assert_eq!(read(Path::new("/dev/null")).unwrap(), b"");
        assert!(read(Path::new("/nowhere")).unwrap_err().starts_with("cannot be read"));
    }

    #[test]
    fn devices_and_folders_are_no_regular_files() {
        for path in ["/dev/zero", "/"] {
            assert_eq!(check(Path::new(path)).unwrap_err(), "is no regular file", "{path}");
        }
        assert!(check(Path::new("Cargo.toml")).is_ok() && check(Path::new("/nowhere")).is_err());
    }
}
