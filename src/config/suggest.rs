//! `did you mean …?`

use std::collections::BTreeSet;

/// The known key that `key` was probably meant to be: one of the same table that is nearly the same, or else the same key where it
/// belongs.
pub(super) fn key(key: &str, siblings: &[&str], everywhere: &BTreeSet<String>) -> Option<String> {
    let near = siblings
        .iter()
        .map(|sibling| (distance(key, sibling), *sibling))
        .filter(|(distance, sibling)| *distance <= sibling.len().div_ceil(4).min(3))
        .min();
    if let Some((_, sibling)) = near {
        return Some(sibling.to_owned());
    }
    everywhere.iter().find(|path| path.rsplit('.').next() == Some(key)).cloned()
}

/// How many letters must be put in, taken out, changed or swapped with their neighbour. Long words are far from everything.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let changed = last[j] + usize::from(a[i] != b[j]);
            let mut best = changed.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_single_slips() {
        for (a, b, expected) in [
            ("", "", 0),
            ("rise", "rise", 0),
            ("rise", "ries", 1),
            ("fall", "fal", 1),
            ("a", "", 1),
            ("hold", "cold", 1),
            ("abc", "xyz", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_near_key_of_the_same_table_comes_before_the_same_key_elsewhere() {
        let everywhere: BTreeSet<String> =
            ["calls.timeout", "health.interval", "el.primary[].http"].map(String::from).into();
        let siblings = ["interval", "timeout", "fall", "rise"];
        assert_eq!(key("intervall", &siblings, &everywhere).as_deref(), Some("interval"));
        assert_eq!(key("timeuot", &siblings, &everywhere).as_deref(), Some("timeout"));
        assert_eq!(key("timeout", &["hold"], &everywhere).as_deref(), Some("calls.timeout"));
        assert_eq!(key("http", &["hold"], &everywhere).as_deref(), Some("el.primary[].http"));
        assert_eq!(key("zzzz", &siblings, &everywhere), None);
        assert_eq!(key("fxxx", &siblings, &everywhere), None);
    }
}
