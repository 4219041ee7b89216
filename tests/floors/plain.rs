//! Counts the words in the texts that operators, clients and newcomers read: string literals of the
//! sources, pages of the docs, names of tests. No count may rise.
//!
//! `cargo test --test floors -- --nocapture only_improve` prints the tables to paste in.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use super::{
    read_all,
    source::Source,
    words::{per_thousand, phrases, vague, words},
};

/// For each directory of `src`, of its string literals with [`A_TEXT`] words or more, and for each
/// page of the docs: vague words, and phrases, in a thousand words.
#[rustfmt::skip]
const MOST: &[(&str, usize, usize)] = &[
    ("CHANGELOG.md", 25, 1),
    ("CONTRIBUTING.md", 25, 2),
    ("README.md", 32, 2),
    ("SECURITY.md", 28, 0),
    ("docs/ARCHITECTURE.md", 8, 0),
    ("docs/CLUSTER.md", 19, 2),
    ("docs/CONFIG.md", 28, 2),
    ("docs/ERRORS.md", 26, 3),
    ("docs/METRICS.md", 9, 5),
    ("docs/MIGRATION.md", 22, 0),
    ("docs/OPERATIONS.md", 24, 3),
    ("docs/OUTBOX.md", 11, 0),
    ("docs/PERFORMANCE.md", 20, 0),
    ("docs/QUICKSTART.md", 35, 3),
    ("docs/SECURITY.md", 25, 2),
    ("docs/STATUS.md", 41, 3),
    ("docs/TESTNET.md", 17, 2),
    ("docs/VALIDATORS.md", 39, 6),
    ("docs/decisions/0001-own-http-client.md", 18, 0),
    ("docs/decisions/0002-fast-lane.md", 16, 0),
    ("docs/decisions/0003-headers-by-allow-list.md", 8, 0),
    ("docs/decisions/0004-beacon-requests.md", 38, 5),
    ("docs/decisions/0005-own-websocket-frames.md", 34, 0),
    ("docs/decisions/0006-follower-reads-snapshots.md", 34, 4),
    ("docs/decisions/0007-filters-are-positions-in-one-record.md", 39, 8),
    ("docs/decisions/0008-a-second-node-after-a-fifth-of-a-slot.md", 28, 0),
    ("docs/decisions/0009-own-json-scanner.md", 18, 0),
    ("docs/decisions/0010-own-config-reader.md", 17, 0),
    ("docs/decisions/0011-own-link-to-a-node.md", 22, 0),
    ("docs/decisions/0012-worker-threads.md", 26, 0),
    ("docs/decisions/0013-one-crate.md", 23, 0),
    ("docs/decisions/0014-alloy-for-ethereum-values.md", 7, 0),
    ("docs/internals/calls.md", 20, 1),
    ("docs/internals/events.md", 17, 1),
    ("docs/internals/limits.md", 8, 1),
    ("docs/internals/nodes.md", 19, 3),
    ("docs/internals/outbox.md", 20, 0),
    ("docs/internals/subscriptions.md", 19, 0),
    ("docs/internals/websockets.md", 16, 2),
    ("src/app", 11, 8),
    ("src/beacon", 30, 0),
    ("src/call", 33, 0),
    ("src/cli", 24, 2),
    ("src/cluster", 7, 0),
    ("src/config", 20, 0),
    ("src/devnet", 1, 1),
    ("src/domain", 5, 0),
    ("src/door", 15, 0),
    ("src/events", 23, 0),
    ("src/metrics", 10, 5),
    ("src/net", 18, 3),
    ("src/outbox", 29, 3),
    ("src/pool", 23, 0),
    ("src/view", 17, 0),
];

/// A string literal with as many words is read by humans; a shorter one may be a key.
const A_TEXT: usize = 3;
/// A test's name begins with the thing that it is about, and not with one of these.
const SUBJECTS: [&str; 8] = ["what", "who", "whoever", "whatever", "nobody", "nothing", "it", "they"];
/// The longest name of a test, in characters.
const LONGEST_NAME: usize = 60;

/// The words of some texts.
#[derive(Default)]
struct Counts {
    words: usize,
    vague: usize,
    phrases: usize,
}

impl Counts {
    fn add(&mut self, words: &[String]) {
        self.words += words.len();
        self.vague += vague(words);
        self.phrases += phrases(words);
    }

    fn per_thousand(&self) -> (usize, usize) {
        (per_thousand(self.vague, self.words), per_thousand(self.phrases, self.words))
    }
}

/// A string literal without its placeholders and line breaks.
fn prose(text: &str) -> String {
    let mut prose = String::new();
    let mut depth = 0;
    for part in text.replace("\\n", " ").split_inclusive(['{', '}']) {
        let (end, step) = if part.ends_with('{') { (1, 1) } else { (usize::from(part.ends_with('}')), -1) };
        if depth <= 0 {
            prose += &part[..part.len() - end];
            prose.push(' ');
        }
        depth = (depth + if end == 1 { step } else { 0 }).max(0);
    }
    prose
}

/// The prose of a page: without blocks of code.
fn page(text: &str) -> String {
    let mut in_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        if !in_code && !fence {
            prose += line;
            prose.push('\n');
        }
    }
    prose
}

fn texts(sources: &[Source]) -> BTreeMap<String, Counts> {
    let mut places = BTreeMap::<String, Counts>::new();
    for source in sources {
        let counts = places.entry(format!("src/{}", source.top().unwrap_or("lib"))).or_default();
        for text in &source.texts {
            let words: Vec<String> = words(&prose(text)).collect();
            if words.len() >= A_TEXT {
                counts.add(&words);
            }
        }
    }
    places
}

/// The complaints about the names of tests.
fn odd_names(sources: &[Source]) -> Vec<String> {
    let mut odd = Vec::new();
    for Source { path, tests, .. } in sources {
        for name in tests {
            let first = name.split('_').next().unwrap_or_default();
            if SUBJECTS.contains(&first) {
                odd.push(format!("{path}: the name of {name} begins with `{first}`: begin with the thing"));
            }
            if name.chars().count() > LONGEST_NAME {
                odd.push(format!("{path}: the name of {name} has more than {LONGEST_NAME} characters"));
            }
        }
    }
    odd
}

/// Each count that is above its limit.
fn risen(texts: &BTreeMap<String, Counts>, most: &[(&str, usize, usize)]) -> Vec<String> {
    let mut risen = Vec::new();
    for (place, counts) in texts {
        let limits = most.iter().find(|(name, ..)| name == place);
        let (_, most_vague, most_phrases) = limits.copied().unwrap_or((place, 0, 0));
        let (vague, phrases) = counts.per_thousand();
        let mut report = |count: usize, limit: usize, words: &str| {
            if count > limit {
                risen.push(format!("{place}: {count} in 1000 words are {words}, {limit} at most"));
            }
        };
        report(vague, most_vague, "what, who, nobody, it, they or such");
        report(phrases, most_phrases, "told, the one or so many");
    }
    risen
}

/// The limits as they would be now, to take the place of [`MOST`].
fn report(texts: &BTreeMap<String, Counts>) -> String {
    let mut report = String::from("const MOST: &[(&str, usize, usize)] = &[\n");
    for (place, counts) in texts.iter().filter(|(_, counts)| counts.per_thousand() != (0, 0)) {
        let (vague, phrases) = counts.per_thousand();
        _ = writeln!(report, "    (\"{place}\", {vague}, {phrases}),");
    }
    report + "];"
}

/// The pages of the docs, by path.
fn pages(root: &Path, folder: &str, pages: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(root.join(folder)).and_then(Iterator::collect::<Result<Vec<_>, _>>).expect("a folder") {
        let path = format!("{folder}/{}", entry.file_name().display()).trim_start_matches("./").to_owned();
        if folder != "." && root.join(&path).is_dir() {
            self::pages(root, &path, pages);
        } else if path.ends_with(".md") {
            pages.push((path, fs::read_to_string(entry.path()).expect("a page")));
        }
    }
}

#[test]
fn words_of_plain_texts_only_improve() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    read_all(root, "src", &mut sources);
    let mut texts = texts(&sources);
    assert!(texts.values().map(|counts| counts.words).sum::<usize>() > 3_000, "this test no longer finds the texts");
    let mut all = Vec::new();
    pages(root, ".", &mut all);
    pages(root, "docs", &mut all);
    // A script writes that page, of what clients did.
    all.retain(|(path, _)| path != "docs/COMPATIBILITY.md");
    assert!(all.len() > 20, "this test no longer finds the pages");
    for (path, text) in &all {
        texts.entry(path.clone()).or_default().add(&words(&page(text)).collect::<Vec<_>>());
    }
    println!("{}", report(&texts));

    let mut risen = risen(&texts, MOST);
    read_all(root, "tests", &mut sources);
    risen.extend(odd_names(&sources));
    assert!(risen.is_empty(), "write plainer:\n{}", risen.join("\n"));
}

#[test]
fn vague_texts_and_names_are_found() {
    let text = "fn f() { warn!(x, \"what {it} told\\n the one: {}\", \"it\"); }\n\
                mod tests { const A: &str = \"what they are told\";\n#[test]\nfn it_stays() {} #[test]\nfn nodes_stay() {} }";
    let sources = [Source::read("src/call/late.rs", text)];
    let texts = texts(&sources);
    let counts = &texts["src/call"];
    assert_eq!((counts.words, counts.vague, counts.phrases), (4, 1, 2));
    assert_eq!(risen(&texts, &[("src/call", 250, 500)]), Vec::<String>::new());
    // A place that is not in the table has no allowance.
    assert_eq!(risen(&texts, &[]).len(), 2);
    let odd = odd_names(&sources);
    assert!(odd.len() == 1 && odd[0].contains("`it`"), "{odd:?}");
    let long = format!("#[test]\nfn {}() {{}}", "a".repeat(LONGEST_NAME + 1));
    assert_eq!(odd_names(&[Source::read("src/call/late.rs", &long)]).len(), 1);
    assert_eq!(page("a\n```sh\nb\n```\nc\n"), "a\nc\n");
}
