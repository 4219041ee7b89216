//! `did you mean …?`

use std::collections::BTreeMap;

use super::form::Form;

/// The known key that the operator probably meant by `key`: a key of the same table with nearly the
/// same letters, or else the same key in its right table.
pub(super) fn key(key: &str, siblings: &[&str], everywhere: &BTreeMap<String, Form>) -> Option<String> {
    let near = siblings
        .iter()
        .map(|sibling| (distance(key, sibling), *sibling))
        .filter(|(distance, sibling)| *distance <= sibling.len().div_ceil(4).min(3))
        .min();
    if let Some((_, sibling)) = near {
        return Some(sibling.to_owned());
    }
    everywhere.keys().find(|path| path.rsplit('.').next() == Some(key)).cloned()
}

/// How many letters must be put in, taken out, changed or swapped with their neighbour. Long words
/// are far from everything, so that a file cannot make this take long.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 { usize::MAX } else { strsim::osa_distance(a, b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_key_here_comes_before_the_same_key_elsewhere() {
        let everywhere = ["calls.timeout", "health.interval", "el.primary[].http"];
        let everywhere = everywhere.map(|key| (key.to_owned(), Form::Text)).into();
        let siblings = ["interval", "timeout", "fall", "rise"];
        assert_eq!(key("intervall", &siblings, &everywhere).as_deref(), Some("interval"));
        assert_eq!(key("timeuot", &siblings, &everywhere).as_deref(), Some("timeout"));
        assert_eq!(key("timeout", &["hold"], &everywhere).as_deref(), Some("calls.timeout"));
        assert_eq!(key("http", &["hold"], &everywhere).as_deref(), Some("el.primary[].http"));
        assert_eq!(key("zzzz", &siblings, &everywhere), None);
        assert_eq!(key("fxxx", &siblings, &everywhere), None);
    }
}
