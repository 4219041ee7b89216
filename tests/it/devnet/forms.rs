//! Forms of JSON values, read from a description like `execution_api.txt`.

use std::collections::BTreeMap;

use serde_json::Value;

/// Methods with the forms of their results.
pub struct Description {
    forms: BTreeMap<&'static str, Form>,
    pub methods: Vec<Method>,
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
        let mut description = Self { forms: BTreeMap::new(), methods: Vec::new() };
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
        let mut why = Vec::new();
        for one in alternatives(form) {
            match self.fits_one(one, value) {
                Ok(()) => return Ok(()),
                Err(error) => why.push(error),
            }
        }
        Err(why.join(", or "))
    }

    fn fits_one(&self, form: &str, value: &Value) -> Result<(), String> {
        if let Some(items) = form.strip_prefix('[').and_then(|form| form.strip_suffix(']')) {
            let list = value.as_array().ok_or_else(|| format!("no list: {value}"))?;
            return list.iter().try_for_each(|item| self.fits(items, item));
        }
        if let Some(form) = self.forms.get(form) {
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

    fn has_members(&self, form: &Form, value: &Value) -> Result<(), String> {
        let object = value.as_object().ok_or_else(|| format!("no object: {value}"))?;
        for (name, may_lack, inner) in &form.members {
            match object.get(*name) {
                Some(member) => self.fits(inner, member).map_err(|why| format!("{name}: {why}"))?,
                None if *may_lack => {}
                None => return Err(format!("{name} is missing")),
            }
        }
        if form.is_closed {
            let is_known = |key: &String| form.members.iter().any(|(name, ..)| name == key);
            if let Some(key) = object.keys().find(|key| !is_known(key)) {
                return Err(format!("{key} is not described"));
            }
        }
        form.bases.iter().try_for_each(|base| self.has_members(&self.forms[base], value))
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
