//! Holds the pages for newcomers to the sources: each path that they name is there, each constant
//! or function that they name together with a file is in that file, and so is each `module::item`.

use std::{fs, path::Path};

/// The first steps of the paths that are looked for. Others may be a user's.
const FOLDERS: [&str; 9] =
    ["src/", "tests/", "docs/", "deploy/", "kurtosis/", "bench/", "benches/", "features/", ".ci/"];

/// The texts between backticks of a paragraph.
fn spans(paragraph: &str) -> impl Iterator<Item = &str> {
    paragraph.split('`').skip(1).step_by(2)
}

/// The paragraphs, list items and rows of a page, without blocks of code.
fn paragraphs(page: &str) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    let mut in_code = false;
    for line in page.lines() {
        let text = line.trim_start();
        in_code ^= text.starts_with("```");
        if in_code || text.starts_with("```") {
            continue;
        }
        let is_item = text.split_once(' ').is_some_and(|(mark, _)| {
            ["-", "*", "|"].contains(&mark) || mark.strip_suffix('.').is_some_and(|number| number.parse::<u8>().is_ok())
        });
        if is_item || text.is_empty() {
            paragraphs.push(String::new());
        }
        if let Some(last) = paragraphs.last_mut() {
            *last += line;
            last.push(' ');
        }
    }
    paragraphs
}

/// Whether a span is the name of a constant, or of a function or key of several words.
fn is_name(span: &str) -> bool {
    let word = span.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    word && span.len() > 1 && (span.contains('_') || !span.chars().any(|c| c.is_ascii_lowercase()))
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| c != '_' && !c.is_alphanumeric()).any(|part| part == word)
}

/// The first step of `path` that is in no file, for a path such as `pool::health::REFUSALS` that
/// begins with a module of `src`.
fn missing_step(path: &str, read: impl Fn(&str) -> Option<String>) -> Option<&str> {
    let steps: Vec<&str> = path.split("::").collect();
    let mut source = read(&format!("src/{}.rs", steps[0]))?;
    for at in 1..steps.len() {
        // A step is a module of its own file, or is in the file of the module before.
        match read(&format!("src/{}.rs", steps[..=at].join("/"))) {
            Some(text) => source = text,
            None if has_word(&source, steps[at].trim_end_matches("()")) => {}
            None => return Some(steps[at]),
        }
    }
    None
}

/// The complaints about one page.
fn wrong(page: &str, exists: impl Fn(&str) -> bool, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for paragraph in paragraphs(page) {
        let spans: Vec<&str> = spans(&paragraph).collect();
        let is_path = |span: &&&str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
            FOLDERS.iter().any(|folder| span.starts_with(folder)) && span.chars().all(plain)
        };
        let paths: Vec<&str> = spans.iter().filter(is_path).copied().collect();
        wrong.extend(paths.iter().filter(|path| !exists(path)).map(|path| format!("there is no {path}")));
        let sources: Vec<String> =
            paths.iter().filter(|path| path.ends_with(".rs")).filter_map(|path| read(path)).collect();
        for span in &spans {
            if !sources.is_empty() && is_name(span) && !sources.iter().any(|source| has_word(source, span)) {
                wrong.push(format!("{span} is not in {}", paths.join(" or ")));
            }
            if span.contains("::")
                && !span.contains('{')
                && let Some(step) = missing_step(span, &read)
            {
                wrong.push(format!("{span}: there is no {step}"));
            }
        }
    }
    wrong
}

#[test]
fn pages_name_paths_and_items_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for folder in ["docs/internals", "docs/decisions"] {
        let entries = fs::read_dir(root.join(folder)).expect("a folder");
        all.extend(entries.map(|entry| format!("{folder}/{}", entry.expect("an entry").file_name().display())));
    }
    all.extend(["CONTRIBUTING.md", "docs/ARCHITECTURE.md"].map(str::to_owned));
    assert!(all.len() > 16, "this test no longer finds the pages");
    let read = |file: &str| fs::read_to_string(root.join(file)).ok();
    let complaints = all.iter().flat_map(|path| {
        let wrong = wrong(&read(path).expect("a page"), |path| root.join(path).exists(), read);
        wrong.into_iter().map(move |wrong| format!("{path}: {wrong}"))
    });
    let complaints: Vec<String> = complaints.collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn a_name_that_is_not_there_is_found() {
    let read = |file: &str| match file {
        "src/pool.rs" => Some("mod health; fn probe_now() {}".to_owned()),
        "src/pool/health.rs" => Some("const REFUSALS: u32 = 2;".to_owned()),
        _ => None,
    };
    let said = |page: &str| wrong(page, |path| read(path).is_some(), read);
    let fine = "`probe_now` in `src/pool.rs`, `pool::health::REFUSALS`.\n1. `net_version`, `tokio::time`, `calls.hold`";
    assert_eq!(said(fine), Vec::<String>::new());
    assert_eq!(said("`src/pol.rs`"), ["there is no src/pol.rs"]);
    assert_eq!(said("- `src/pool.rs`: `REFUSALS`"), ["REFUSALS is not in src/pool.rs"]);
    assert_eq!(said("`pool::health::FLAPS`"), ["pool::health::FLAPS: there is no FLAPS"]);
}
