//! Holds `docs/internals/limits.md` to the sources: each row's constant is there and has that
//! value.

use std::{fs, path::Path};

/// The rows of the page: the constant's path, and its value as the page writes it.
fn rows(page: &str) -> Vec<(&str, &str)> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    cells.filter_map(|(path, rest)| Some((path, rest.split_once(" | ")?.0))).collect()
}

/// The expression of the first constant `name` in `source`.
fn expression<'a>(source: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = source.split_once(&format!("const {name}: "))?;
    let (_, after) = after.split_once('=')?;
    Some(after.split_once(';')?.0.trim())
}

/// The values of an expression: milliseconds where there are durations, else one number.
fn values(expression: &str) -> Option<Vec<f64>> {
    let mut parts = expression.split("Duration::from_").skip(1).peekable();
    if parts.peek().is_none() {
        return Some(vec![number(expression)?]);
    }
    let milliseconds = |part: &str| {
        let (unit, rest) = part.split_once('(')?;
        let scale = if unit == "secs" { 1000.0 } else { 1.0 };
        Some(number(rest.split_once(')')?.0)? * scale)
    };
    parts.map(milliseconds).collect()
}

/// A product, a shift, or a number by itself.
fn number(expression: &str) -> Option<f64> {
    if let Some((number, by)) = expression.split_once("<<") {
        return Some(self::number(number)? * 2_f64.powf(self::number(by)?));
    }
    expression.split('*').map(|factor| factor.trim().replace('_', "").parse::<f64>().ok()).product()
}

/// The values as the page writes them: `10 ms to 2 s`, `4 MiB`, `1,024`. A part such as `1/8` is
/// written in the sources as its divisor.
fn written(text: &str) -> Option<Vec<f64>> {
    let one = |text: &str| {
        let text = text.strip_prefix("1/").unwrap_or(text);
        let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
        let scale = match unit {
            "" | "ms" => 1.0,
            "s" => 1000.0,
            "min" => 60_000.0,
            "h" => 3_600_000.0,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            "GiB" => 1024.0 * 1024.0 * 1024.0,
            _ => return None,
        };
        Some(number.replace(',', "").parse::<f64>().ok()? * scale)
    };
    text.split(" to ").map(one).collect()
}

/// The complaint about the row, if there is one; `read` gives the text of a source file.
fn wrong(path: &str, value: &str, read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (module, name) = path.rsplit_once("::")?;
    let file = format!("src/{}.rs", module.replace("::", "/"));
    let Some(source) = read(&file) else { return Some(format!("{path}: there is no {file}")) };
    let Some(expression) = expression(&source, name) else { return Some(format!("{path}: not in {file}")) };
    let is_same = values(expression).is_some_and(|values| written(value) == Some(values));
    (!is_same).then(|| format!("{path}: the page says {value}, {file} says {expression}"))
}

#[test]
fn the_page_of_limits_agrees_with_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/internals/limits.md")).expect("the page");
    let rows = rows(&page);
    assert!(rows.len() > 100, "this test no longer finds the rows that are there");
    let read = |file: &str| fs::read_to_string(root.join(file)).ok();
    let wrong: Vec<String> = rows.iter().filter_map(|(path, value)| wrong(path, value, read)).collect();
    assert!(wrong.is_empty(), "docs/internals/limits.md:\n{}", wrong.join("\n"));
}

#[test]
fn a_limit_that_the_page_gets_wrong_is_found() {
    let source = "pub const A: usize = 4 << 20;\nconst B: Backoff =\n Backoff::new(Duration::from_millis(10), Duration::from_secs(2));\n\
                  const C: Duration = Duration::from_secs(15 * 60);\nconst D: f64 = 6.0;\nconst E: u32 = 65_536;";
    let read = |file: &str| (file == "src/a/b.rs").then(|| source.to_owned());
    for (name, value) in
        [("A", "4 MiB"), ("B", "10 ms to 2 s"), ("C", "15 min"), ("D", "6"), ("D", "1/6"), ("E", "65,536")]
    {
        assert_eq!(wrong(&format!("a::b::{name}"), value, read), None);
        assert!(wrong(&format!("a::b::{name}"), "7 s", read).is_some());
    }
    assert!(wrong("a::b::F", "1", read).is_some_and(|wrong| wrong.contains("not in src/a/b.rs")));
    assert!(wrong("a::c::A", "1", read).is_some_and(|wrong| wrong.contains("there is no src/a/c.rs")));
}
