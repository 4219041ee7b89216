//! The state that one reading of a configuration shares: the lines of its keys, and all mistakes
//! found.

use std::{cell::RefCell, collections::BTreeMap, path::Path};

use toml::de::{DeTable, DeValue};

use super::{form::Form, problem::Problem, suggest};

/// Looks up an environment variable.
pub(super) type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A reading, from the first key to the list of problems.
pub(super) struct Reading<'a> {
    env: &'a Env<'a>,
    folder: &'a Path,
    lines: BTreeMap<String, usize>,
    problems: RefCell<Vec<Problem>>,
    /// Every key that was asked for, present or absent, in the form `el.primary[].http`, and the
    /// form of the key's value.
    asked: RefCell<BTreeMap<String, Form>>,
    unknown: RefCell<Vec<Unknown>>,
}

/// A key of the file that was not asked for.
pub(super) struct Unknown {
    pub(super) path: String,
    pub(super) key: String,
    /// The keys that were asked for in the same table.
    pub(super) siblings: Vec<&'static str>,
}

impl<'a> Reading<'a> {
    /// Begins a reading of `table`, which was parsed from `text`. Relative paths in the table start
    /// at `folder`.
    pub(super) fn new(text: &str, table: &DeTable<'_>, folder: &'a Path, env: &'a Env<'a>) -> Self {
        let mut lines = BTreeMap::new();
        let line_ends: Vec<usize> = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i).collect();
        note_lines(table, "", &line_ends, &mut lines);
        Self {
            env,
            folder,
            lines,
            problems: RefCell::default(),
            asked: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    pub(super) fn env(&self) -> &Env<'a> {
        self.env
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder
    }

    pub(super) fn asked_for(&self, pattern: String, form: Form) {
        self.asked.borrow_mut().insert(pattern, form);
    }

    pub(super) fn found_unknown(&self, unknown: Unknown) {
        self.unknown.borrow_mut().push(unknown);
    }

    /// Records a problem. `message` must hold no value from the file or the environment.
    pub(super) fn fail(&self, path: &str, message: impl Into<String>) {
        let problem = Problem { path: path.to_owned(), line: self.line(path), message: message.into() };
        self.problems.borrow_mut().push(problem);
    }

    /// Records a problem at `path` unless the rule `holds`, or one of the compared values is known
    /// to be wrong already.
    pub(super) fn check(&self, holds: bool, path: &str, others: &[&str], message: &str) {
        if !holds && self.is_clean(path) && others.iter().all(|other| self.is_clean(other)) {
            self.fail(path, message);
        }
    }

    /// Ends the reading: all problems, flags first, then from top to bottom.
    pub(super) fn finish(self) -> Finished {
        let asked = self.asked.take();
        for Unknown { path, key, siblings } in self.unknown.take() {
            let hint = suggest::key(&key, &siblings, &asked).map(|near| format!("; did you mean `{near}`?"));
            self.fail(&path, format!("is not a known key{}", hint.unwrap_or_default()));
        }
        let mut problems = self.problems.take();
        problems.sort_by_key(|problem| problem.line);
        Finished { problems, asked }
    }

    /// Whether no problem is recorded for `path` or below.
    pub(super) fn is_clean(&self, path: &str) -> bool {
        !self.problems.borrow().iter().any(|problem| {
            problem.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// The line of `path`, or else of the nearest table around the key.
    fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            match self.lines.get(path) {
                Some(line) => return Some(*line),
                None => path = &path[..path.rfind(['.', '['])?],
            }
        }
    }
}

/// The outcome of a reading.
pub(super) struct Finished {
    pub(super) problems: Vec<Problem>,
    /// Every key that was asked for, and the form of its value.
    pub(super) asked: BTreeMap<String, Form>,
}

/// `path` and `key` with a dot between. A key that needs quotes is not shown: the key may be a
/// value in the wrong place.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = key.len() <= 64 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_<>".contains(&b));
    let key = if bare && !key.is_empty() { key } else { "***" };
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn note_lines(table: &DeTable<'_>, path: &str, line_ends: &[usize], lines: &mut BTreeMap<String, usize>) {
    let line = |offset: usize| line_ends.partition_point(|end| *end < offset) + 1;
    for (key, value) in table {
        let path = join(path, key.get_ref());
        lines.entry(path.clone()).or_insert_with(|| line(key.span().start));
        match value.get_ref() {
            DeValue::Table(table) => note_lines(table, &path, line_ends, lines),
            DeValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    let path = format!("{path}[{i}]");
                    lines.entry(path.clone()).or_insert_with(|| line(item.span().start));
                    if let DeValue::Table(table) = item.get_ref() {
                        note_lines(table, &path, line_ends, lines);
                    }
                }
            }
            _ => {}
        }
    }
}
