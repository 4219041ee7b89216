//! A ratchet for words: the comments of each directory of `src` may only become plainer and
//! narrower.
//!
//! `cargo test --test floors -- --nocapture only_improve` prints the counts, the table to paste in,
//! and the same counts for the whole tree.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use super::{
    read_all,
    source::{Comment, Source},
};

/// A sentence that begins with one of these has its subject later, or none.
const OPENINGS: [&str; 5] = ["what", "who", "one", "nobody", "it"];

/// Words that stand where a noun would say more.
const VAGUE: [&str; 6] = ["what", "who", "nobody", "it", "they", "such"];

/// Phrases for which the field has a word: sent, reported, answered; the thing's name; a number.
const PHRASES: [&[&str]; 3] = [&["told"], &["the", "one"], &["so", "many"]];

/// The widest line that holds a comment.
const COLUMNS: usize = 100;

/// For each directory: sentences that begin with one of [`OPENINGS`]; words of [`VAGUE`] and
/// [`PHRASES`] in a thousand words; lines with a comment that are wider than [`COLUMNS`]. No count
/// may rise.
#[rustfmt::skip]
const MOST: &[(&str, usize, usize, usize, usize)] = &[
    ("app", 0, 1, 3, 0),
    ("beacon", 0, 6, 7, 0),
    ("call", 1, 7, 1, 0),
    ("chain", 0, 4, 3, 0),
    ("cli", 1, 7, 2, 0),
    ("cluster", 10, 7, 4, 0),
    ("config", 0, 2, 3, 0),
    ("devnet", 0, 6, 3, 0),
    ("domain", 0, 5, 3, 0),
    ("door", 5, 7, 2, 0),
    ("events", 0, 2, 2, 0),
    ("exchange", 0, 4, 2, 0),
    ("lib", 0, 7, 2, 0),
    ("main", 0, 0, 0, 0),
    ("memory", 0, 8, 6, 0),
    ("metrics", 0, 9, 5, 0),
    ("net", 0, 7, 3, 0),
    ("outbox", 122, 29, 4, 0),
    ("pool", 0, 6, 4, 0),
    ("route", 0, 0, 3, 0),
    ("view", 0, 7, 2, 0),
];

/// The counts of the comments of some files.
#[derive(Default)]
struct Counts {
    sentences: usize,
    openings: usize,
    openings_without_it: usize,
    words: usize,
    vague: usize,
    phrases: usize,
    wide: usize,
    /// Lines of `//` comments, which give reasons; `///` and `//!` describe.
    reasons: usize,
    code_lines: usize,
    columns: Vec<usize>,
}

impl Counts {
    fn add(&mut self, source: &Source) {
        self.code_lines += source.code_lines;
        for comment in &source.comments {
            self.wide += usize::from(comment.columns > COLUMNS);
            self.reasons += usize::from(kind(comment) == "//");
            self.columns.push(comment.columns);
        }
        for sentence in sentences(&source.comments) {
            let words: Vec<String> = words(&sentence).collect();
            let Some(first) = words.first() else { continue };
            self.sentences += 1;
            self.openings += usize::from(OPENINGS.contains(&&**first));
            self.openings_without_it += usize::from(first != "it" && OPENINGS.contains(&&**first));
            self.words += words.len();
            self.vague += vague(&words);
            self.phrases += phrases(&words);
        }
    }

    fn vague_per_thousand(&self) -> usize {
        per_thousand(self.vague, self.words)
    }

    fn phrases_per_thousand(&self) -> usize {
        per_thousand(self.phrases, self.words)
    }

    fn column(&self, tenths: usize) -> usize {
        let mut columns = self.columns.clone();
        columns.sort_unstable();
        columns.get((columns.len() * tenths / 10).min(columns.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// How many of a thousand, rounded up so that a limit cannot hide a rise.
pub(crate) fn per_thousand(count: usize, of: usize) -> usize {
    (count * 1000).div_ceil(of.max(1))
}

/// How many of `words` are in [`VAGUE`].
pub(crate) fn vague(words: &[String]) -> usize {
    words.iter().filter(|word| VAGUE.contains(&&***word)).count()
}

/// How often one of [`PHRASES`] is in `words`.
pub(crate) fn phrases(words: &[String]) -> usize {
    PHRASES.iter().map(|phrase| words.windows(phrase.len()).filter(|window| window == phrase).count()).sum()
}

/// The slashes with which a comment begins, and the mark behind them.
fn kind(comment: &Comment) -> &'static str {
    match comment.text.get(2..3) {
        Some("/") => "///",
        Some("!") => "//!",
        _ => "//",
    }
}

/// The sentences of `comments`. Neighbouring lines of one kind are one paragraph; an empty line, a
/// heading, an item of a list and a row of a table begin a new one. Code is left out.
fn sentences(comments: &[Comment]) -> Vec<String> {
    let mut paragraphs: Vec<String> = Vec::new();
    let mut before: Option<&Comment> = None;
    let mut in_code = false;
    for comment in comments {
        let text = comment.text[kind(comment).len()..].trim();
        let follows = before.is_some_and(|before| before.line + 1 == comment.line && kind(before) == kind(comment));
        in_code &= follows;
        before = Some(comment);
        let fence = text.starts_with("```");
        in_code ^= fence;
        if in_code || fence {
            paragraphs.push(String::new());
            continue;
        }
        let begins = text.is_empty() || ["- ", "* ", "|", "#"].iter().any(|mark| text.starts_with(mark));
        match paragraphs.last_mut() {
            Some(paragraph) if follows && !begins => *paragraph += &format!(" {text}"),
            _ => paragraphs.push(text.to_owned()),
        }
    }
    paragraphs.iter().flat_map(|paragraph| split(paragraph)).collect()
}

/// Cuts a paragraph behind full stops, question and exclamation marks that a capital follows.
fn split(paragraph: &str) -> Vec<String> {
    let mut sentences = vec![String::new()];
    let mut parts = paragraph.split_inclusive(' ').peekable();
    while let Some(part) = parts.next() {
        if let Some(sentence) = sentences.last_mut() {
            *sentence += part;
        }
        let ends = part.trim_end().trim_end_matches(['"', '\'', ')', '*']).ends_with(['.', '!', '?']);
        if ends && parts.peek().is_some_and(|next| !next.starts_with(char::is_lowercase)) {
            sentences.push(String::new());
        }
    }
    sentences
}

/// The words of `sentence` in lower case, without what stands between backticks.
pub(crate) fn words(sentence: &str) -> impl Iterator<Item = String> {
    let prose: Vec<&str> = sentence.split('`').step_by(2).collect();
    let prose = prose.join(" x ").replace("'s", "");
    let words: Vec<String> =
        prose.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    words.into_iter()
}

/// The counts of each directory of `src`, a file at the top counting to the directory of its name.
fn by_directory(sources: &[Source]) -> BTreeMap<String, Counts> {
    let mut directories = BTreeMap::<String, Counts>::new();
    for source in sources {
        directories.entry(source.top().unwrap_or("lib").to_owned()).or_default().add(source);
    }
    directories
}

/// Each count of `directories` that is above its limit in `most`.
fn risen(directories: &BTreeMap<String, Counts>, most: &[(&str, usize, usize, usize, usize)]) -> Vec<String> {
    let mut risen = Vec::new();
    for (directory, counts) in directories {
        let limits = most.iter().find(|(name, ..)| name == directory);
        let (_, openings, vague, phrases, wide) = limits.copied().unwrap_or((directory, 0, 0, 0, 0));
        let mut report = |count: usize, limit: usize, name: &str| {
            if count > limit {
                risen.push(format!("src/{directory}: {count} {name}, {limit} at most"));
            }
        };
        report(counts.openings, openings, "comment sentences that begin with What, Who, One, Nobody or It");
        report(counts.vague_per_thousand(), vague, "in 1000 comment words are what, who, nobody, it, they or such");
        report(counts.phrases_per_thousand(), phrases, "in 1000 comment words are told, the one or so many");
        report(counts.wide, wide, "lines with comments are wider than 100 columns");
    }
    risen
}

/// The limits as they would be now, to take the place of [`MOST`], and the counts of the tree.
fn report(directories: &BTreeMap<String, Counts>, all: &Counts) -> String {
    let mut report = String::from("const MOST: &[(&str, usize, usize, usize, usize)] = &[\n");
    for (directory, counts) in directories {
        let (vague, phrases) = (counts.vague_per_thousand(), counts.phrases_per_thousand());
        _ = writeln!(report, "    (\"{directory}\", {}, {vague}, {phrases}, {}),", counts.openings, counts.wide);
    }
    let percent = |count: usize| count as f64 * 100.0 / all.sentences.max(1) as f64;
    _ = write!(
        report,
        "];\n\nsentences that begin with What, Who, One, Nobody: {:.1} %; with It too: {:.1} %\n\
         what, who, nobody, it, they, such in 1000 comment words: {}; told, the one, so many: {}\n\
         lines of reasons (`//`) for 100 lines of code: {:.1}\n\
         columns of comments, p90 / most: {} / {}; wider than {COLUMNS}: {}\n",
        percent(all.openings_without_it),
        percent(all.openings),
        all.vague_per_thousand(),
        all.phrases_per_thousand(),
        all.reasons as f64 * 100.0 / all.code_lines.max(1) as f64,
        all.column(9),
        all.column(10),
        all.wide,
    );
    report
}

#[test]
fn words_and_widths_of_comments_only_improve() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    read_all(root, "src", &mut sources);
    let directories = by_directory(&sources);
    let mut all = Counts::default();
    sources.iter().for_each(|source| all.add(source));
    assert!(all.words > 10_000, "this test no longer finds the comments that are there");

    println!("{}", report(&directories, &all));
    read_all(root, "tests", &mut sources);
    println!("columns of test names, median / p90 / most: {}", lengths(&sources));
    for &(directory, openings, vague, phrases, wide) in MOST {
        let Some(counts) = directories.get(directory) else { panic!("src/{directory} is gone: take it off MOST") };
        let far = |count: usize, limit: usize| limit > count + count / 10 + 5;
        let (now_vague, now_phrases) = (counts.vague_per_thousand(), counts.phrases_per_thousand());
        if far(counts.openings, openings)
            || far(now_vague, vague)
            || far(now_phrases, phrases)
            || far(counts.wide, wide)
        {
            println!("src/{directory} is far below its limits: lower them in tests/floors/words.rs");
        }
    }
    let risen = risen(&directories, MOST);
    assert!(risen.is_empty(), "write plainer or narrower comments:\n{}", risen.join("\n"));
}

/// The median, the ninth tenth and the greatest of the lengths of test names.
fn lengths(sources: &[Source]) -> String {
    let mut lengths: Vec<usize> =
        sources.iter().flat_map(|source| &source.tests).map(|name| name.chars().count()).collect();
    lengths.sort_unstable();
    let at = |tenths: usize| lengths[(lengths.len() * tenths / 10).min(lengths.len() - 1)];
    format!("{} / {} / {}, of {} tests", at(5), at(9), at(10), lengths.len())
}

#[test]
fn vague_words_are_counted_and_wide_lines_found() {
    let text = "\
//! Reads a file. What it reads
//! is kept. Such files are small.
//!
//! ```
//! What is code is not read.
//! ```
//! - One item.
let url = \"// Who is no comment\"; // Nobody, 'it' `what`
/// Who was told so many times.
/* What */";
    let text = format!("{text}\n// {}\n", "a".repeat(98));
    let mut counts = Counts::default();
    counts.add(&Source::read("src/call.rs", &text));
    assert_eq!(counts.sentences, 7);
    assert_eq!((counts.openings, counts.openings_without_it), (4, 4));
    // What it / Such / Nobody it / Who.
    assert_eq!((counts.vague, counts.phrases), (6, 2));
    assert_eq!((counts.wide, counts.columns.len(), counts.reasons, counts.code_lines), (1, 10, 2, 1));
}

#[test]
fn a_count_of_words_above_its_limit_is_told() {
    let source = Source::read("src/call/late.rs", "/// Who waits.\n/// A call waits.\n");
    let directories = by_directory(&[source]);
    assert_eq!(risen(&directories, &[("call", 1, 200, 0, 0)]), Vec::<String>::new());
    let told = risen(&directories, &[("call", 0, 199, 0, 0)]);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].starts_with("src/call: 1 comment sentences that begin"), "{told:#?}");
    // A directory that is not in the table has no allowance.
    assert_eq!(risen(&directories, &[]).len(), 2);
}
