//! A TOML or YAML file as one kind of tree, whose keys are taken one by one: the keys left at the
//! end were not understood.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use toml::de::{DeTable, DeValue};

use super::import::Import;

/// A value and the first of its lines.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) line: usize,
    pub(super) value: Value,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A string, number or truth value in the form of the file.
    Text(String),
    /// Nothing: the `null` of YAML.
    Null,
    List(Vec<Tree>),
    Map(Vec<Key>),
}

/// A key of a map, with its value.
#[derive(Clone, Debug)]
pub(super) struct Key {
    name: String,
    line: usize,
    value: Tree,
}

impl Tree {
    /// Reads TOML.
    pub(super) fn toml(text: &str) -> Result<Self, String> {
        let table = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_at(text, span.start));
            format!("{line}: is not TOML: {}", error.message().replace('\n', " "))
        })?;
        let line = |at: usize| line_at(text, at);
        Ok(of_table(&line, table.into_inner()))
    }

    /// Reads the first document of YAML.
    pub(super) fn yaml(text: &str) -> Result<Self, String> {
        let mut documents = MarkedYaml::load_from_str(text)
            .map_err(|error| format!("{}: is not YAML: {}", error.marker().line(), error.info()))?;
        if documents.is_empty() {
            return Ok(Self { line: 1, value: Value::Null });
        }
        Ok(of_yaml(documents.swap_remove(0)))
    }

    /// The value of `key`, which counts as understood from now on.
    pub(super) fn take(&mut self, key: &str) -> Option<Tree> {
        let Value::Map(keys) = &mut self.value else { return None };
        let at = keys.iter().position(|other| other.name == key)?;
        let Key { line, mut value, .. } = keys.remove(at);
        value.line = line;
        Some(value)
    }

    /// The text of `key`, and its line.
    pub(super) fn text(&mut self, key: &str) -> Option<(usize, String)> {
        let value = self.take(key)?;
        match value.value {
            Value::Text(text) => Some((value.line, text)),
            _ => None,
        }
    }

    /// The number of `key`, and its line.
    pub(super) fn number(&mut self, key: &str) -> Option<(usize, u64)> {
        self.text(key).and_then(|(line, text)| Some((line, text.parse().ok()?)))
    }

    /// The entries of the list `key`.
    pub(super) fn list(&mut self, key: &str) -> Vec<Tree> {
        match self.take(key).map(|tree| tree.value) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }

    /// The keys of a map with their texts.
    pub(super) fn texts(self) -> Vec<(String, String)> {
        let Value::Map(keys) = self.value else { return Vec::new() };
        let text = |key: Key| match key.value.value {
            Value::Text(text) => Some((key.name, text)),
            _ => None,
        };
        keys.into_iter().filter_map(text).collect()
    }

    /// Notes every key that was not taken. `why` tells the reason for a key by its path, where one
    /// is known.
    pub(super) fn leave(self, path: &str, why: &dyn Fn(&str) -> Option<&'static str>, import: &mut Import) {
        let Value::Map(keys) = self.value else { return };
        for Key { name, line, value } in keys {
            let path = if path.is_empty() { name } else { format!("{path}.{name}") };
            match (&value.value, why(&path)) {
                (_, Some(reason)) => import.leave(line, path, reason),
                (Value::Map(keys), None) if !keys.is_empty() => value.leave(&path, why, import),
                _ => import.leave(line, path, "is not known"),
            }
        }
    }
}

fn line_at(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

fn of_table(line: &dyn Fn(usize) -> usize, table: DeTable<'_>) -> Tree {
    let keys = table.into_iter().map(|(name, value)| {
        let at = line(name.span().start);
        let mut value = of_toml(line, value.span().start, value.into_inner());
        value.line = value.line.max(at);
        Key { name: name.into_inner().into_owned(), line: at, value }
    });
    let mut keys: Vec<Key> = keys.collect();
    // In the order of the file.
    keys.sort_by_key(|key| key.line);
    Tree { line: keys.first().map_or(1, |key| key.line), value: Value::Map(keys) }
}

fn of_toml(line: &dyn Fn(usize) -> usize, start: usize, value: DeValue<'_>) -> Tree {
    let text = |text: String| Tree { line: line(start), value: Value::Text(text) };
    match value {
        DeValue::Table(table) => of_table(line, table),
        DeValue::Array(items) => {
            let items = items.into_iter().map(|item| of_toml(line, item.span().start, item.into_inner()));
            Tree { line: line(start), value: Value::List(items.collect()) }
        }
        DeValue::String(value) => text(value.into_owned()),
        DeValue::Integer(value) => text(value.as_str().to_owned()),
        DeValue::Float(value) => text(value.as_str().to_owned()),
        DeValue::Boolean(value) => text(value.to_string()),
        DeValue::Datetime(value) => text(value.to_string()),
    }
}

fn of_yaml(node: MarkedYaml<'_>) -> Tree {
    let line = node.span.start.line();
    let value = match node.data {
        YamlData::Value(Scalar::Null) => Value::Null,
        YamlData::Value(Scalar::Boolean(value)) => Value::Text(value.to_string()),
        YamlData::Value(Scalar::Integer(value)) => Value::Text(value.to_string()),
        YamlData::Value(Scalar::FloatingPoint(value)) => Value::Text(value.to_string()),
        YamlData::Value(Scalar::String(value)) => Value::Text(value.into_owned()),
        YamlData::Representation(value, ..) => Value::Text(value.into_owned()),
        YamlData::Sequence(items) => Value::List(items.into_iter().map(of_yaml).collect()),
        YamlData::Mapping(keys) => Value::Map(keys.into_iter().filter_map(|(name, value)| key(name, value)).collect()),
        YamlData::Tagged(_, inner) => return of_yaml(*inner),
        YamlData::Alias(_) | YamlData::BadValue => Value::Null,
    };
    Tree { line, value }
}

fn key(name: MarkedYaml<'_>, value: MarkedYaml<'_>) -> Option<Key> {
    let Tree { line, value: Value::Text(name) } = of_yaml(name) else { return None };
    Some(Key { name, line, value: of_yaml(value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_were_not_taken_are_left_with_their_lines() {
        for mut tree in [
            Tree::toml("a = 1\n[b]\nc = \"x\"\nd = [\n 2,\n 3]\n[b.e]\nf = true\n").unwrap(),
            Tree::yaml("a: 1\nb:\n  c: x\n  d:\n    - 2\n    - 3\n\n  e:\n    f: true\n").unwrap(),
        ] {
            assert_eq!(tree.number("a").unwrap(), (1, 1));
            let mut b = tree.take("b").unwrap();
            assert_eq!(b.text("c").unwrap(), (3, "x".to_owned()));
            assert_eq!(b.list("d").len(), 2);
            let mut import = Import::default();
            b.leave("b", &|_| None, &mut import);
            let notes: Vec<_> = import.notes.iter().map(ToString::to_string).collect();
            assert!(notes.len() == 1 && notes[0].ends_with(": b.e.f: is not known"), "{notes:?}");
        }
        assert!(Tree::toml("a = 1\nb = \n").unwrap_err().starts_with("2: is not TOML"));
        assert!(Tree::yaml("a: 1\nb: [\n").unwrap_err().contains("is not YAML"));
    }
}
