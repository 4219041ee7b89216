//! A TOML or YAML file as one kind of tree, whose keys are taken one by one: the keys left at the
//! end were not understood. A key whose value is of another type than was asked for is not taken.

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
    /// Why the value could not be used, if the key was asked for.
    wrong: Option<&'static str>,
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

    /// Reads the first document of YAML, and notes the others.
    pub(super) fn yaml(text: &str, import: &mut Import) -> Result<Self, String> {
        let mut documents = MarkedYaml::load_from_str(text)
            .map_err(|error| format!("{}: is not YAML: {}", error.marker().line(), error.info()))?;
        if documents.is_empty() {
            return Ok(Self { line: 1, value: Value::Null });
        }
        for another in &documents[1..] {
            import.leave(another.span.start.line(), "---", "begins another document, and the first alone is read");
        }
        Ok(of_yaml(documents.swap_remove(0)))
    }

    /// The value of `key`, of whatever type, which counts as understood from now on.
    pub(super) fn take(&mut self, key: &str) -> Option<Tree> {
        self.take_if(key, "", Ok)
    }

    /// The text of `key`, and its line.
    pub(super) fn text(&mut self, key: &str) -> Option<(usize, String)> {
        self.take_if(key, "is not a text", |tree| match tree.value {
            Value::Text(text) => Ok((tree.line, text)),
            _ => Err(tree),
        })
    }

    /// The number of `key`, and its line.
    pub(super) fn number(&mut self, key: &str) -> Option<(usize, u64)> {
        self.take_if(key, "is not a number from 0 on", |tree| match &tree.value {
            Value::Text(text) => text.parse().map(|number| (tree.line, number)).map_err(|_| tree),
            _ => Err(tree),
        })
    }

    /// The map of `key`.
    pub(super) fn map(&mut self, key: &str) -> Option<Tree> {
        let is_map = |tree: Tree| if matches!(tree.value, Value::Map(_)) { Ok(tree) } else { Err(tree) };
        self.take_if(key, "is not a map", is_map)
    }

    /// The entries of the list `key`.
    pub(super) fn list(&mut self, key: &str) -> Vec<Tree> {
        let items = self.take_if(key, "is not a list", |tree| match tree.value {
            Value::List(items) => Ok(items),
            _ => Err(tree),
        });
        items.unwrap_or_default()
    }

    /// The keys of the map `key` with their texts. Other values stay.
    pub(super) fn texts(&mut self, key: &str) -> Vec<(String, String)> {
        let Some(mut map) = self.map(key) else { return Vec::new() };
        let Value::Map(keys) = &mut map.value else { return Vec::new() };
        let names: Vec<String> = keys.iter().map(|key| key.name.clone()).collect();
        let texts = names.into_iter().filter_map(|name| map.text(&name).map(|(_, text)| (name, text))).collect();
        if let (Value::Map(rest), Value::Map(keys)) = (&map.value, &mut self.value)
            && !rest.is_empty()
        {
            keys.push(Key { name: key.to_owned(), line: map.line, value: map, wrong: None });
        }
        texts
    }

    /// The value of `key` as `read` understands the value. A value that `read` gives back stays in
    /// its place, and `wrong` is the reason in its note.
    fn take_if<T>(&mut self, key: &str, wrong: &'static str, read: impl FnOnce(Tree) -> Result<T, Tree>) -> Option<T> {
        let Value::Map(keys) = &mut self.value else { return None };
        let at = keys.iter().position(|other| other.name == key)?;
        let mut found = keys.remove(at);
        let mut value = found.value;
        value.line = found.line;
        match read(value) {
            Ok(understood) => Some(understood),
            Err(value) => {
                found.wrong = Some(if matches!(value.value, Value::Null) { "is empty" } else { wrong });
                found.value = value;
                keys.insert(at, found);
                None
            }
        }
    }

    /// Notes every key that was not taken. `why` tells the reason for a key by its path, where one
    /// is known.
    pub(super) fn leave(self, path: &str, why: &dyn Fn(&str) -> Option<&'static str>, import: &mut Import) {
        let keys = match self.value {
            Value::Map(keys) => keys,
            Value::Null => return,
            _ => return import.leave(self.line, if path.is_empty() { "the file" } else { path }, "is not a map"),
        };
        for Key { name, line, value, wrong } in keys {
            let path = if path.is_empty() { name } else { format!("{path}.{name}") };
            match (&value.value, wrong.or_else(|| why(&path))) {
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
        Key { name: name.into_inner().into_owned(), line: at, value, wrong: None }
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
        DeValue::Integer(value) => {
            // `0x10` is written as 16.
            let number = i128::from_str_radix(value.as_str(), value.radix());
            text(number.map_or_else(|_| value.to_string(), |number| number.to_string()))
        }
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
        YamlData::Mapping(keys) => Value::Map(keys.into_iter().map(|(name, value)| key(name, value)).collect()),
        YamlData::Tagged(_, inner) => return of_yaml(*inner),
        YamlData::Alias(_) | YamlData::BadValue => Value::Null,
    };
    Tree { line, value }
}

fn key(name: MarkedYaml<'_>, value: MarkedYaml<'_>) -> Key {
    let Tree { line, value: name } = of_yaml(name);
    let name = if let Value::Text(name) = name { name } else { "(a key that is not a text)".to_owned() };
    Key { name, line, value: of_yaml(value), wrong: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_were_not_taken_are_left_with_their_lines() {
        for mut tree in [
            Tree::toml("a = 1\n[b]\nc = \"x\"\nd = [\n 2,\n 3]\n[b.e]\nf = true\n").unwrap(),
            yaml("a: 1\nb:\n  c: x\n  d:\n    - 2\n    - 3\n\n  e:\n    f: true\n"),
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
        assert!(Tree::yaml("a: 1\nb: [\n", &mut Import::default()).unwrap_err().contains("is not YAML"));
    }

    fn yaml(text: &str) -> Tree {
        Tree::yaml(text, &mut Import::default()).unwrap()
    }

    fn notes(import: &Import) -> Vec<String> {
        import.notes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_value_of_another_type_stays_and_is_noted() {
        let toml = "text = [1]\nnumber = -1\nlist = \"x\"\nmap = 2.5\ntexts = { a = [], b = \"x\" }\n";
        let as_yaml = "text: [1]\nnumber: -1\nlist: x\nmap: 2.5\ntexts: {a: [], b: x}\n";
        for mut tree in [Tree::toml(toml).unwrap(), yaml(as_yaml)] {
            assert!(tree.text("text").is_none() && tree.number("number").is_none() && tree.map("map").is_none());
            assert!(tree.list("list").is_empty());
            assert_eq!(tree.texts("texts"), [("b".to_owned(), "x".to_owned())]);
            let mut import = Import::default();
            tree.leave("", &|_| Some("has a reason"), &mut import);
            let expected = [
                "1: text: is not a text",
                "2: number: is not a number from 0 on",
                "3: list: is not a list",
                "4: map: is not a map",
                "5: texts: has a reason",
            ];
            assert_eq!(notes(&import), expected);
        }
        let mut import = Import::default();
        let mut tree = yaml("a:\nb: {c: 1}\n? [d]\n: 1\n");
        assert!(tree.number("a").is_none());
        yaml("- a\n").leave("list", &|_| None, &mut import);
        tree.leave("", &|_| None, &mut import);
        let expected = [
            "1: list: is not a map",
            "1: a: is empty",
            "2: b.c: is not known",
            "3: (a key that is not a text): is not known",
        ];
        assert_eq!(notes(&import), expected);
    }

    #[test]
    fn numbers_keep_their_value_whatever_their_base() {
        let mut tree = Tree::toml("a = 0x10\nb = 0o17\nc = 0b101\nd = 1_000\ne = +7\n").unwrap();
        let numbers = ["a", "b", "c", "d", "e"].map(|key| tree.number(key).unwrap().1);
        assert_eq!(numbers, [16, 15, 5, 1000, 7]);
        assert_eq!(yaml("a: 0x10\n").number("a").unwrap().1, 16);
    }

    #[test]
    fn further_documents_are_noted() {
        let mut import = Import::default();
        Tree::yaml("a: 1\n---\nb: 2\n---\nc: 3\n", &mut import).unwrap();
        let why = "begins another document, and the first alone is read";
        assert_eq!(notes(&import), [format!("3: ---: {why}"), format!("5: ---: {why}")]);
    }
}
