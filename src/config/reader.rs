//! Takes keys out of one table. The keys left at the end are unknown keys.

use std::{
    fmt::Display,
    mem,
    num::{NonZeroU32, NonZeroUsize},
    ops::RangeInclusive,
    time::Duration,
};

use toml::de::{DeArray, DeTable, DeValue};

use super::{
    form::Form,
    interpolate::interpolate,
    problem::Invalid,
    reading::{Reading, Unknown, join},
    units,
};

/// A table of the file, or an empty one in its place. A method that takes a key records the
/// mistakes in its value and goes on; when the reader is dropped, the keys that no method took are
/// recorded too.
pub(super) struct Reader<'r> {
    reading: &'r Reading<'r>,
    path: String,
    /// The path with list positions and free names left out.
    pattern: String,
    table: DeTable<'r>,
    asked: Vec<&'static str>,
}

impl<'r> Reader<'r> {
    /// The outermost table.
    pub(super) fn root(reading: &'r Reading<'r>, table: DeTable<'r>) -> Self {
        Self { reading, path: String::new(), pattern: String::new(), table, asked: Vec::new() }
    }

    pub(super) fn reading(&self) -> &'r Reading<'r> {
        self.reading
    }

    /// Dotted path of this table.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether the table has `key`, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Records a problem with `key`.
    pub(super) fn fail(&self, key: &str, message: impl Into<String>) {
        self.reading.fail(&join(&self.path, key), message);
    }

    /// [`Reading::check`] with keys of this table.
    pub(super) fn check(&self, holds: bool, key: &str, others: &[&str], message: &str) {
        let others: Vec<String> = others.iter().map(|other| join(&self.path, other)).collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        self.reading.check(holds, &join(&self.path, key), &others, message);
    }

    /// A string, given to `parse`; `None` where the key is absent or its value wrong.
    pub(super) fn parse<T, E: Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.parse_as(Form::Text, key, parse)
    }

    /// A duration above zero.
    pub(super) fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        self.duration_if_set(key).unwrap_or(default)
    }

    /// A duration above zero; `None` where the key is absent or its value wrong.
    pub(super) fn duration_if_set(&mut self, key: &'static str) -> Option<Duration> {
        let above_zero = |text: &str| match units::duration(text)? {
            Duration::ZERO => Err(Invalid("must not be zero")),
            duration => Ok(duration),
        };
        self.parse_as(Form::Duration, key, above_zero)
    }

    /// A duration.
    pub(super) fn duration_or_zero(&mut self, key: &'static str, default: Duration) -> Duration {
        self.parse_as(Form::Duration, key, units::duration).unwrap_or(default)
    }

    /// A size in bytes, above zero.
    pub(super) fn size(&mut self, key: &'static str, default: usize) -> usize {
        self.size_if_set(key).unwrap_or(default)
    }

    /// A size in bytes, above zero; `None` where the key is absent or its value wrong.
    pub(super) fn size_if_set(&mut self, key: &'static str) -> Option<usize> {
        self.parse_as(Form::Size, key, units::size)
    }

    /// Any of the `words`.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)], default: T) -> T {
        self.choice_if_set(key, words).unwrap_or(default)
    }

    /// Any of the `words`; `None` where the key is absent or its value wrong.
    pub(super) fn choice_if_set<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let pick = |text: &str| words.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice).ok_or(());
        let names: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let form = Form::Choice(words.iter().map(|(word, _)| (*word).to_owned()).collect());
        let pick = |text: &str| pick(text).map_err(|()| format!("must be {}", names.join(" or ")));
        self.parse_as(form, key, pick)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        self.boolean_if_set(key).unwrap_or(default)
    }

    /// `true` or `false`; `None` where the key is absent or its value wrong.
    pub(super) fn boolean_if_set(&mut self, key: &'static str) -> Option<bool> {
        match self.take(key, Form::Boolean)? {
            DeValue::Boolean(value) => Some(value),
            other => {
                self.fail(key, format!("must be true or false, not {}", kind(&other)));
                None
            }
        }
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: &'static str, default: u64) -> u64 {
        self.integer(key, 0..=u64::MAX).unwrap_or(default)
    }

    /// A whole number above zero.
    pub(super) fn positive(&mut self, key: &'static str, default: NonZeroU32) -> NonZeroU32 {
        self.positive_if_set(key).unwrap_or(default)
    }

    /// A whole number above zero; `None` where the key is absent or its value wrong.
    pub(super) fn positive_if_set(&mut self, key: &'static str) -> Option<NonZeroU32> {
        let number = self.integer(key, 1..=u32::MAX.into());
        number.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new)
    }

    /// A count of things above zero.
    pub(super) fn count(&mut self, key: &'static str, default: NonZeroUsize) -> NonZeroUsize {
        self.count_if_set(key).unwrap_or(default)
    }

    /// A count of things above zero; `None` where the key is absent or its value wrong.
    pub(super) fn count_if_set(&mut self, key: &'static str) -> Option<NonZeroUsize> {
        let number = self.integer(key, 1..=u32::MAX.into());
        number.and_then(|n| usize::try_from(n).ok()).and_then(NonZeroUsize::new)
    }

    /// A whole number in `range`; `None` where the key is absent or its value wrong.
    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.take(key, Form::Integer(range.clone()))?;
        self.integer_of(&join(&self.path, key), number, &range)
    }

    /// The whole number at `path`.
    fn integer_of(&self, path: &str, value: DeValue<'r>, range: &RangeInclusive<u64>) -> Option<u64> {
        let DeValue::Integer(number) = value else {
            self.reading.fail(path, format!("must be a whole number, not {}", kind(&value)));
            return None;
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(n) if range.contains(&n) => Some(n),
            _ => {
                self.reading.fail(path, format!("must be from {} to {}", range.start(), range.end()));
                None
            }
        }
    }

    /// A list of strings, each given to `parse`, none twice; `None` where the key is absent or one
    /// of the strings is wrong.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Option<Vec<T>> {
        let items = match self.take(key, Form::List)? {
            DeValue::Array(items) => items,
            other => {
                self.fail(key, format!("must be a list of strings, not {}", kind(&other)));
                return None;
            }
        };
        self.items(key, items, parse)
    }

    /// A list as of [`Reader::list`], or a single string.
    pub(super) fn one_or_more<T: PartialEq>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Option<Vec<T>> {
        match self.take(key, Form::OneOrMore)? {
            DeValue::Array(items) => self.items(key, items, parse),
            one @ DeValue::String(_) => {
                let text = self.text(&join(&self.path, key), one, "a string")?;
                parse(&text).map(|one| vec![one]).map_err(|wrong| self.fail(key, wrong.to_string())).ok()
            }
            other => {
                self.fail(key, format!("must be a string or a list of strings, not {}", kind(&other)));
                None
            }
        }
    }

    fn items<T: PartialEq>(
        &self,
        key: &str,
        items: DeArray<'r>,
        parse: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Option<Vec<T>> {
        let count = items.len();
        let mut list = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            let path = format!("{}[{i}]", join(&self.path, key));
            let Some(text) = self.text(&path, item.into_inner(), "a string") else { continue };
            match parse(&text) {
                Ok(item) if list.contains(&item) => self.reading.fail(&path, "is in the list already"),
                Ok(item) => list.push(item),
                Err(wrong) => self.reading.fail(&path, wrong.to_string()),
            }
        }
        (list.len() == count).then_some(list)
    }

    /// A table of strings under free names: name, path and value of each, and whether a variable
    /// was filled in.
    pub(super) fn strings(&mut self, key: &'static str) -> Vec<(String, String, String, bool)> {
        let path = join(&self.path, key);
        let entries = self.table_at(key, Form::StringTable).into_iter().filter_map(|(name, value)| {
            let name = name.into_inner().into_owned();
            let path = join(&path, &name);
            let value = value.into_inner();
            let filled_in = matches!(&value, DeValue::String(text) if text.replace("$${", "").contains("${"));
            self.text(&path, value, "a string").map(|text| (name, path, text, filled_in))
        });
        entries.collect()
    }

    /// A table of whole numbers in `range` under free names: name, path and value of each.
    pub(super) fn integers(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Vec<(String, String, u64)> {
        let path = join(&self.path, key);
        let mut numbers = Vec::new();
        for (name, value) in self.table_at(key, Form::IntegerTable(range.clone())) {
            let name = name.into_inner().into_owned();
            let path = join(&path, &name);
            if let Some(number) = self.integer_of(&path, value.into_inner(), &range) {
                numbers.push((name, path, number));
            }
        }
        numbers
    }

    /// The table `[key]`; an empty one where the key is absent or its value no table.
    pub(super) fn section(&mut self, key: &'static str) -> Reader<'r> {
        let table = self.table_at(key, Form::Table);
        self.child(join(&self.path, key), join(&self.pattern, key), table)
    }

    /// The tables `[key.<name>]`, by name.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<(String, Reader<'r>)> {
        let (path, pattern) = (join(&self.path, key), format!("{}.<name>", join(&self.pattern, key)));
        let mut sections = Vec::new();
        for (name, value) in self.table_at(key, Form::Table) {
            let name = name.into_inner().into_owned();
            let path = join(&path, &name);
            if let Some(table) = self.table_of(&path, value.into_inner()) {
                sections.push((name, self.child(path, pattern.clone(), table)));
            }
        }
        sections
    }

    /// The tables `[[key]]`.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Reader<'r>> {
        let (path, pattern) = (join(&self.path, key), format!("{}[]", join(&self.pattern, key)));
        let items = match self.take(key, Form::Tables) {
            None => return Vec::new(),
            Some(DeValue::Array(items)) => items,
            Some(other) => {
                self.fail(key, format!("must be a list of tables `[[{path}]]`, not {}", kind(&other)));
                return Vec::new();
            }
        };
        let mut tables = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{i}]");
            if let Some(table) = self.table_of(&path, item.into_inner()) {
                tables.push(self.child(path, pattern.clone(), table));
            }
        }
        tables
    }

    fn child(&self, path: String, pattern: String, table: DeTable<'r>) -> Reader<'r> {
        Reader { reading: self.reading, path, pattern, table, asked: Vec::new() }
    }

    fn take(&mut self, key: &'static str, form: Form) -> Option<DeValue<'r>> {
        self.asked.push(key);
        self.reading.asked_for(join(&self.pattern, key), form);
        self.table.remove(key).map(|value| value.into_inner())
    }

    fn table_at(&mut self, key: &'static str, form: Form) -> DeTable<'r> {
        let table = self.take(key, form).and_then(|value| self.table_of(&join(&self.path, key), value));
        table.unwrap_or_default()
    }

    fn table_of(&self, path: &str, value: DeValue<'r>) -> Option<DeTable<'r>> {
        match value {
            DeValue::Table(table) => Some(table),
            other => {
                self.reading.fail(path, format!("must be a table, not {}", kind(&other)));
                None
            }
        }
    }

    fn parse_as<T, E: Display>(
        &mut self,
        form: Form,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let wanted = form.in_words();
        let value = self.take(key, form)?;
        let text = self.text(&join(&self.path, key), value, wanted)?;
        parse(&text).map_err(|wrong| self.fail(key, wrong.to_string())).ok()
    }

    /// The string at `path` with its variables filled in.
    fn text(&self, path: &str, value: DeValue<'r>, wanted: &str) -> Option<String> {
        let DeValue::String(text) = value else {
            self.reading.fail(path, format!("must be {wanted}, not {}", kind(&value)));
            return None;
        };
        match interpolate(&text, self.reading.env()) {
            Ok(text) => Some(text),
            Err(problems) => {
                problems.into_iter().for_each(|problem| self.reading.fail(path, problem));
                None
            }
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        for (key, _) in mem::take(&mut self.table) {
            let key = key.into_inner().into_owned();
            let (path, siblings) = (join(&self.path, &key), self.asked.clone());
            self.reading.found_unknown(Unknown { path, key, siblings });
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
