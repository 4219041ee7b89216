//! The memory that this process may use: the machine's, its control group's, or the limit on
//! addresses.

use std::{fs, path::Path};

/// The memory that is assumed where nothing tells.
const UNKNOWN: u64 = 2 << 30;

/// A quarter of the memory that there is.
pub fn quarter() -> usize {
    usize::try_from(least(Path::new("/")).unwrap_or(UNKNOWN) / 4).unwrap_or(usize::MAX)
}

/// The least of all bounds that files below `root` tell.
fn least(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let machine = read("proc/meminfo").lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
        kib.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    // Soft limit before hard limit, `unlimited` or bytes.
    let limits = read("proc/self/limits");
    let addressed = limits.lines().find_map(|line| line.strip_prefix("Max address space"));
    let addressed = addressed.and_then(|line| line.split_whitespace().next()?.parse().ok());
    let groups = read("proc/self/cgroup");
    let groups = groups.lines().flat_map(|line| of_group(root, line));
    machine.into_iter().chain(addressed).chain(groups).filter(|bytes| *bytes > 0).min()
}

/// The bounds of one line of `/proc/self/cgroup`, `number:controllers:path`, and of the groups
/// around it. Inside a container the path may be one of the host's, of which only the end is to be
/// seen, or nothing.
fn of_group(root: &Path, line: &str) -> Vec<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let (trees, file): (&[&str], _) = match controllers {
        "" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max"),
        _ if controllers.split(',').any(|one| one == "memory") => (&["sys/fs/cgroup/memory"], "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    let files = trees.iter().flat_map(|tree| groups.map(move |group| root.join(tree).join(group).join(file)));
    files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least bound of a machine with these files.
    fn bound(name: &str, files: &[(&str, &str)]) -> Option<u64> {
        let root = std::env::temp_dir().join(format!("steadfast-memory-{}-{name}", std::process::id()));
        for (file, text) in files {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let bound = least(&root);
        let _ = fs::remove_dir_all(&root);
        bound
    }

    #[test]
    fn the_least_bound_counts_whoever_sets_it() {
        const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        8000000 kB\nMemFree:  1 kB\n");
        const TWO: (&str, &str) = ("proc/self/cgroup", "0::/a/b\n");
        const ONE: (&str, &str) = ("proc/self/cgroup", "7:cpu,memory:/docker/x\n3:cpu:/y\n");
        let machine = 8_000_000 * 1024;
        assert_eq!(bound("nothing", &[]), None);
        assert_eq!(bound("machine", &[MACHINE]), Some(machine));
        let addressed = |text| ("proc/self/limits", text);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax address space   536870912   unlimited  bytes\n";
        assert_eq!(bound("addressed", &[MACHINE, addressed(limits)]), Some(512 << 20));
        let unlimited = "Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(bound("unlimited", &[MACHINE, addressed(unlimited)]), Some(machine));
        assert_eq!(bound("own", &[MACHINE, TWO, ("sys/fs/cgroup/a/b/memory.max", "1000\n")]), Some(1000));
        let around = [MACHINE, TWO, ("sys/fs/cgroup/a/b/memory.max", "max\n"), ("sys/fs/cgroup/a/memory.max", "2000")];
        assert_eq!(bound("around", &around), Some(2000));
        assert_eq!(bound("container", &[MACHINE, TWO, ("sys/fs/cgroup/memory.max", "3000\n")]), Some(3000));
        let mixed = [MACHINE, TWO, ("sys/fs/cgroup/unified/a/b/memory.max", "4000\n")];
        assert_eq!(bound("mixed", &mixed), Some(4000));
        let first = "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes";
        assert_eq!(bound("first", &[MACHINE, ONE, (first, "5000\n")]), Some(5000));
        let seen = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(bound("seen", &[MACHINE, ONE, (seen, "9223372036854771712\n")]), Some(machine));
    }
}
