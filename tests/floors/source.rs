//! A source file as the floors see it: the paths that the file names, each made absolute, its
//! comments, and its texts.

use std::collections::BTreeSet;

/// A source file.
pub(crate) struct Source {
    /// Its path from the package's root.
    pub(crate) path: String,
    /// How many lines it has.
    pub(crate) lines: usize,
    /// Every path named in it, `use` trees taken apart. Plain local names are among them.
    pub(crate) references: Vec<Reference>,
    /// Attributes and macros that put modules where this reading does not look.
    pub(crate) unreadable: Vec<Unreadable>,
    /// Its line comments, in order.
    pub(crate) comments: Vec<Comment>,
    /// Its plain string literals outside of tests, without quotes.
    pub(crate) texts: Vec<String>,
    /// The names of its tests.
    pub(crate) tests: Vec<String>,
    /// The lines that hold code.
    pub(crate) code_lines: usize,
    module: Vec<String>,
}

/// A line comment.
pub(crate) struct Comment {
    /// The line, from 1.
    pub(crate) line: usize,
    /// Columns of that line.
    pub(crate) columns: usize,
    /// With its slashes.
    pub(crate) text: String,
}

/// A path that is named somewhere.
pub(crate) struct Reference {
    /// The line, from 1.
    pub(crate) line: usize,
    /// Absolute if it is of this crate (`crate::pool::Pool`), else as written.
    pub(crate) path: String,
    /// The module in which it stands, from the crate's root.
    pub(crate) from: Vec<String>,
    /// Whether that is a module named `tests`.
    pub(crate) in_tests: bool,
}

/// Something that this reading cannot follow.
pub(crate) struct Unreadable {
    /// The line, from 1.
    pub(crate) line: usize,
    /// Its name.
    pub(crate) what: &'static str,
}

impl Source {
    /// Reads the file at `path` with the content `text`.
    pub(crate) fn read(path: &str, text: &str) -> Self {
        let stem = path.strip_prefix("src/").and_then(|path| path.strip_suffix(".rs")).unwrap_or(path);
        let mut module: Vec<String> = stem.split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "mod") || module == ["lib"] {
            module.pop();
        }
        let (comments, tokens): (Vec<Token>, Vec<Token>) = tokens(text).into_iter().partition(Token::is_comment);
        let columns: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        let code_lines: BTreeSet<usize> = tokens.iter().map(|token| token.line).collect();
        let comment = |Token { line, text }| Comment { line, columns: columns[line - 1], text };
        let mut source = Self {
            path: path.to_owned(),
            lines: columns.len(),
            references: Vec::new(),
            unreadable: Vec::new(),
            comments: comments.into_iter().map(comment).collect(),
            texts: Vec::new(),
            tests: tests(&tokens),
            code_lines: code_lines.len(),
            module,
        };
        source.walk(&tokens);
        source
    }

    /// The top-level module; none for the crate's root.
    pub(crate) fn top(&self) -> Option<&str> {
        self.module.first().map(String::as_str)
    }

    fn walk(&mut self, tokens: &[Token]) {
        let word = |at: usize| tokens.get(at).map_or("", |token| &*token.text);
        // Modules opened in this file, each with the depth of braces at which it closes.
        let mut inner: Vec<(String, usize)> = Vec::new();
        let (mut depth, mut at) = (0, 0);
        while at < tokens.len() {
            match word(at) {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    inner.pop_if(|(_, closes)| *closes == depth);
                }
                "mod" if tokens[at + 1..].first().is_some_and(Token::is_word) => {
                    if word(at + 2) == "{" {
                        inner.push((word(at + 1).to_owned(), depth));
                    }
                    at += 1;
                }
                // `pub(in super::super)` widens a view, it imports nothing.
                "pub" if word(at + 1) == "(" => {
                    while at < tokens.len() && word(at) != ")" {
                        at += 1;
                    }
                }
                "#" if word(at + 1) == "[" && word(at + 2) == "path" => self.hidden(tokens[at].line, "#[path]"),
                "include" if word(at + 1) == "!" => self.hidden(tokens[at].line, "include!"),
                text if text.starts_with('"') => {
                    let mut modules = self.module.iter().chain(inner.iter().map(|(name, _)| name));
                    if !modules.any(|name| name == "tests") {
                        self.texts.push(text.trim_matches('"').to_owned());
                    }
                }
                _ if tokens[at].is_word() && (at == 0 || word(at - 1) != ".") => {
                    let mut from = self.module.clone();
                    from.extend(inner.iter().map(|(name, _)| name.clone()));
                    let mut named = Vec::new();
                    at = path(tokens, at, &mut Vec::new(), &mut named);
                    for (line, steps) in named {
                        let in_tests = from.iter().any(|name| name == "tests");
                        if let Some(path) = absolute(&from, &steps) {
                            self.references.push(Reference { line, path, from: from.clone(), in_tests });
                        }
                    }
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn hidden(&mut self, line: usize, what: &'static str) {
        self.unreadable.push(Unreadable { line, what });
    }
}

/// The names of the functions behind `#[test]` and `#[tokio::test(…)]`.
fn tests(tokens: &[Token]) -> Vec<String> {
    let word = |at: usize| tokens.get(at).map_or("", |token| &*token.text);
    let mut names = Vec::new();
    let mut is_test = false;
    for at in 0..tokens.len() {
        match word(at) {
            "#" => is_test |= word(at + 2) == "test" || (word(at + 2) == "tokio" && word(at + 4) == "test"),
            "fn" if is_test => {
                names.push(word(at + 1).to_owned());
                is_test = false;
            }
            _ => {}
        }
    }
    names
}

/// Reads the path, or the `use` tree, that starts at `at`: into `named` go all that it names, and
/// where it ends is returned.
fn path(tokens: &[Token], mut at: usize, steps: &mut Vec<String>, named: &mut Vec<(usize, Vec<String>)>) -> usize {
    let start = steps.len();
    let mut line = tokens[at].line;
    while let Some(token) = tokens.get(at) {
        if token.text == "{" && at > 0 && tokens[at - 1].text == "::" {
            at += 1;
            while let Some(token) = tokens.get(at)
                && token.text != "}"
            {
                // Between branches: commas, and `as name`.
                let branch = token.is_word() && token.text != "as" && tokens[at - 1].text != "as";
                at = if branch || token.text == "*" { path(tokens, at, steps, named) } else { at + 1 };
            }
            steps.truncate(start);
            return at + 1;
        }
        if !token.is_word() && token.text != "*" {
            break;
        }
        line = token.line;
        steps.push(token.text.clone());
        at += 1;
        if tokens.get(at).is_none_or(|token| token.text != "::") {
            break;
        }
        at += 1;
    }
    named.push((line, steps.clone()));
    steps.truncate(start);
    at
}

/// `steps` as seen from the module `from`: of this crate and absolute, or else as it is. None if
/// empty.
fn absolute(from: &[String], steps: &[String]) -> Option<String> {
    let mut at = match steps.first()?.as_str() {
        "crate" | "steadfast" => Vec::new(),
        "self" | "super" if steps.len() > 1 || steps[0] == "super" => from.to_vec(),
        _ => return Some(steps.join("::")),
    };
    for step in steps {
        match step.as_str() {
            "crate" | "steadfast" | "self" => {}
            "super" => _ = at.pop(),
            step => at.push(step.to_owned()),
        }
    }
    at.insert(0, "crate".to_owned());
    Some(at.join("::"))
}

struct Token {
    line: usize,
    text: String,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text.starts_with(|first: char| first == '_' || first.is_alphabetic())
    }

    fn is_comment(&self) -> bool {
        self.text.starts_with("//")
    }
}

/// Words, `::`, single marks, line comments and plain texts; block comments, raw texts, texts of
/// bytes, numbers and lifetimes are left out.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let peek = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let start = at;
        let mut token = None;
        match peek(at) {
            '/' if peek(at + 1) == '/' => {
                while at < chars.len() && peek(at) != '\n' {
                    at += 1;
                }
                token = Some(chars[start..at].iter().collect());
            }
            '/' if peek(at + 1) == '*' => at = after_comment(&chars, at),
            '"' => {
                at = after_text(&chars, at + 1).min(chars.len());
                token = Some(chars[start..at].iter().collect());
            }
            // A character, unless it is a lifetime.
            '\'' if peek(at + 1) == '\\' || peek(at + 2) == '\'' => {
                at += if peek(at + 1) == '\\' { 3 } else { 2 };
                while at < chars.len() && peek(at) != '\'' {
                    at += 1;
                }
                at += 1;
            }
            c if is_word(c) || c == '\'' => {
                at += 1;
                while is_word(peek(at)) {
                    at += 1;
                }
                let word: String = chars[start..at].iter().collect();
                let hashes = (at..).take_while(|&at| peek(at) == '#').count();
                match (&*word, peek(at), peek(at + hashes)) {
                    ("r" | "br" | "cr", '"' | '#', '"') => at = after_raw_text(&chars, at + hashes + 1, hashes),
                    ("b" | "c", '"', _) => at = after_text(&chars, at + 1),
                    // `r#type`: the word comes next.
                    ("r", '#', _) => at += 1,
                    _ if c.is_ascii_digit() || c == '\'' => {}
                    _ => token = Some(word),
                }
            }
            ':' if peek(at + 1) == ':' => {
                at += 2;
                token = Some("::".to_owned());
            }
            c => {
                at += 1;
                token = (!c.is_whitespace()).then(|| c.to_string());
            }
        }
        tokens.extend(token.map(|text| Token { line, text }));
        at = at.min(chars.len());
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn after_text(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn after_raw_text(chars: &[char], mut at: usize, hashes: usize) -> usize {
    let closes = |at: usize| chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    while at < chars.len() && !closes(at) {
        at += 1;
    }
    at + 1 + hashes
}

fn after_comment(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}
