//! Forms of JSON values, read from a description like `execution_api.txt`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use serde_json::Value;

/// Methods with the forms of their results.
pub struct Description {
    forms: BTreeMap<&'static str, Form>,
    pub methods: Vec<Method>,
    /// Lists that had elements, each by its form and the form or method that it is of.
    filled: RefCell<BTreeSet<String>>,
}

#[derive(Default)]
struct Form {
    bases: Vec<&'static str>,
    /// Name without `?`, whether it may be absent, and form.
    members: Vec<(&'static str, bool, &'static str)>,
    is_closed: bool,
}

pub struct Method {
    pub name: &'static str,
    /// The form of its result; none: it may only be refused.
    pub form: Option<&'static str>,
    /// Params to ask with.
    pub params: Vec<&'static str>,
}

impl Description {
    pub fn read(text: &'static str) -> Self {
        let mut description = Self { forms: BTreeMap::new(), methods: Vec::new(), filled: RefCell::default() };
        let mut form = "";
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            if let Some(head) = line.strip_prefix("form ") {
                let (name, bases) = head.split_once(" : ").unwrap_or((head, ""));
                form = name;
                let bases = bases.split_whitespace().collect();
                description.forms.insert(name, Form { bases, ..Form::default() });
            } else if let Some(head) = line.strip_prefix("method ") {
                form = "";
                let (name, form) = head.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                let form = Some(form).filter(|form| *form != "-");
                description.methods.push(Method { name, form, params: Vec::new() });
            } else if let Some(form) = description.forms.get_mut(form) {
                match line.trim().split_once(' ') {
                    Some((name, inner)) => {
                        let plain = name.strip_suffix('?');
                        form.members.push((plain.unwrap_or(name), plain.is_some(), inner));
                    }
                    None => form.is_closed = true,
                }
            } else {
                description.methods.last_mut().unwrap().params.push(line.trim());
            }
        }
        description
    }

    pub fn method(&self, name: &str) -> &Method {
        self.methods.iter().find(|method| method.name == name).unwrap_or_else(|| panic!("{name} is not described"))
    }

    /// Whether the value is of one of the alternatives of the form, or else why it is of none.
    pub fn fits(&self, form: &str, value: &Value) -> Result<(), String> {
        self.fits_at("", form, value)
    }

    /// The same for a result of the method.
    pub fn fits_result(&self, method: &Method, value: &Value) -> Result<(), String> {
        self.fits_at(method.name, method.form.ok_or("its form is not written down")?, value)
    }

    /// The lists of the methods' results and of all forms that never had an element.
    pub fn never_filled(&self) -> BTreeSet<String> {
        let results = self.methods.iter().filter_map(|method| Some((method.name.to_owned(), method.form?)));
        let members = self.forms.iter().flat_map(|(name, form)| {
            form.members.iter().map(move |(member, _, inner)| (format!("{name}.{member}"), *inner))
        });
        let mut lists = BTreeSet::new();
        for (of, form) in results.chain(members) {
            lists_in(&of, form, &mut lists);
        }
        lists.difference(&self.filled.borrow()).cloned().collect()
    }

    fn fits_at(&self, of: &str, form: &str, value: &Value) -> Result<(), String> {
        let mut why = Vec::new();
        for one in alternatives(form) {
            match self.fits_one(of, one, value) {
                Ok(()) => return Ok(()),
                Err(error) => why.push(error),
            }
        }
        Err(why.join(", or "))
    }

    fn fits_one(&self, of: &str, form: &str, value: &Value) -> Result<(), String> {
        if let Some(items) = elements(form) {
            let list = value.as_array().ok_or_else(|| format!("no list: {value}"))?;
            list.iter().try_for_each(|item| self.fits_at(of, items, item))?;
            if !list.is_empty() {
                self.filled.borrow_mut().insert(format!("{of} {form}"));
            }
            return Ok(());
        }
        if self.forms.contains_key(form) {
            return self.has_members(form, value);
        }
        let text = value.as_str();
        let hex = |digits: usize| text.is_some_and(|text| text.len() == 2 + digits) && is_hex(text);
        let is = match form {
            "null" => value.is_null(),
            "bool" => value.is_boolean(),
            "number" => value.is_number(),
            "text" => text.is_some(),
            "uint" => {
                is_hex(text) && text.is_some_and(|text| text == "0x0" || text[2..].starts_with(|first| first != '0'))
            }
            "byte" => hex(1) || hex(2),
            "bytes" => is_hex(text) && text.is_some_and(|text| text.len().is_multiple_of(2)),
            "bytes8" => hex(16),
            "bytes256" => hex(512),
            "hash" => hex(64),
            "address" => hex(40),
            literal if literal.starts_with('"') => text == Some(literal.trim_matches('"')),
            unknown => panic!("no form is called {unknown}"),
        };
        if is { Ok(()) } else { Err(format!("{value} is no {form}")) }
    }

    fn has_members(&self, name: &str, value: &Value) -> Result<(), String> {
        let form = &self.forms[name];
        let object = value.as_object().ok_or_else(|| format!("no object: {value}"))?;
        for (member, may_lack, inner) in &form.members {
            match object.get(*member) {
                Some(value) => {
                    self.fits_at(&format!("{name}.{member}"), inner, value).map_err(|why| format!("{member}: {why}"))?
                }
                None if *may_lack => {}
                None => return Err(format!("{member} is missing")),
            }
        }
        if form.is_closed {
            let is_known = |key: &String| form.members.iter().any(|(name, ..)| name == key);
            if let Some(key) = object.keys().find(|key| !is_known(key)) {
                return Err(format!("{key} is not described"));
            }
        }
        form.bases.iter().try_for_each(|base| self.has_members(base, value))
    }
}

/// The form of the elements, if this is the form of a list.
fn elements(form: &str) -> Option<&str> {
    form.strip_prefix('[')?.strip_suffix(']')
}

/// Adds the lists in the form of `of`.
fn lists_in(of: &str, form: &str, lists: &mut BTreeSet<String>) {
    for one in alternatives(form) {
        if let Some(items) = elements(one) {
            lists.insert(format!("{of} {one}"));
            lists_in(of, items, lists);
        }
    }
}

/// The alternatives of a form; those in a list are the list's own.
fn alternatives(form: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, byte) in form.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            b'|' if depth == 0 => {
                found.push(form[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(form[start..].trim());
    found
}

/// Whether the text is `0x` and digits in lower case.
fn is_hex(text: Option<&str>) -> bool {
    let digits = text.and_then(|text| text.strip_prefix("0x"));
    digits.is_some_and(|digits| digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
}
