//! Measures memory in a process of its own, in which no other test takes some.

use std::{env, fs, process::Command};

/// Set in that process.
const ALONE: &str = "STEADFAST_TEST_WEIGHS";
/// Begins the line with the outcome.
const OUTCOME: &str = "bytes of each: ";

/// Bytes of memory that each of `count` things takes, by the test of this path, which calls this.
/// In the process of its own the answer is 0.
pub(super) fn bytes_of_each<T>(test: &str, count: usize, make: impl FnOnce() -> T) -> usize {
    if env::var_os(ALONE).is_some() {
        let before = resident();
        let made = make();
        let bytes = (resident() - before) / count;
        drop(made);
        println!("\n{OUTCOME}{bytes}");
        return 0;
    }
    let mut alone = Command::new(env::current_exe().unwrap());
    let output = alone.args([test, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome = text.lines().find_map(|line| line.strip_prefix(OUTCOME)?.parse().ok());
    outcome.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Resident memory of this process in bytes.
pub(super) fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() * 1024
}
