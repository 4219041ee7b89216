//! The target of an HTTP request: a path and a query, which may be longer than a `Uri` can be.

/// A path, which begins with `/`, and a query if there is one. Holds no byte that could end a
/// request line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    text: Box<str>,
    /// Where the `?` is.
    query: Option<usize>,
}

impl Target {
    /// A target of these parts; `None` where the parts cannot stand in a request line.
    pub fn new(path: &str, query: Option<&str>) -> Option<Self> {
        let is_good = |b: u8| b > b' ' && b != b'#' && b != 0x7f;
        let parts = [path, query.unwrap_or_default()];
        if !path.starts_with('/') || path.contains('?') || !parts.iter().all(|part| part.bytes().all(is_good)) {
            return None;
        }
        let mut text = String::with_capacity(path.len() + query.map_or(0, |query| 1 + query.len()));
        text.push_str(path);
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        Some(Self { text: text.into(), query: query.map(|_| path.len()) })
    }

    /// Reads a target; `None` where `text` cannot stand in a request line.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('?') {
            Some((path, query)) => Self::new(path, Some(query)),
            None => Self::new(text, None),
        }
    }

    /// Path and query together.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path.
    pub fn path(&self) -> &str {
        &self.text[..self.query.unwrap_or(self.text.len())]
    }

    /// The query, without its `?`.
    pub fn query(&self) -> Option<&str> {
        self.query.map(|at| &self.text[at + 1..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_it_was_made_of_and_ends_no_line() {
        for (text, path, query) in
            [("/", "/", None), ("/a/b?", "/a/b", Some("")), ("/a?b?c=/", "/a", Some("b?c=/")), ("//é", "//é", None)]
        {
            let target = Target::parse(text).unwrap();
            assert_eq!((target.as_str(), target.path(), target.query()), (text, path, query));
        }
        for text in ["", "a", "?a", "/a b", "/a\r\n", "/a?\0", "/a#b", "/a?b#c", "/\u{7f}"] {
            assert_eq!(Target::parse(text), None, "{text:?}");
        }
        assert_eq!(Target::new("/a?b", None), None);
        let long = format!("/a?{}", "x".repeat(200_000));
        assert_eq!(Target::parse(&long).unwrap().as_str(), long);
    }
}
