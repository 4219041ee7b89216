//! The mistakes of a configuration: all at once, each with its place, never with a value.

use std::{fmt, path::PathBuf};

/// Why one value is refused. The text is fixed at compile time, so that the text cannot hold the
/// refused value, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub(super) &'static str);

/// A single mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the key (`el.primary[0].http`) or the flag (`--el[0]`); empty when the whole
    /// file is meant.
    pub path: String,
    /// Line in the file, from 1; `None` where there is no file, or the path has no line.
    pub line: Option<usize>,
    /// The mistake and its remedy. Holds no value from the file or the environment.
    pub message: String,
}

impl Problem {
    fn is_about_a_flag(&self) -> bool {
        self.path.starts_with("--")
    }
}

/// Everything that is wrong, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    /// The file that was read; `None` when there was none.
    pub file: Option<PathBuf>,
    /// Problems with flags first, then the file's from top to bottom.
    pub problems: Vec<Problem>,
}

impl std::error::Error for Errors {}

/// Each problem on a line, without a line break at the end:
/// `steadfast.toml:12: el.primary[0].http: …`.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            if let Some(file) = self.file.as_ref().filter(|_| !problem.is_about_a_flag()) {
                write!(f, "{}:", file.display())?;
                if let Some(line) = problem.line {
                    write!(f, "{line}:")?;
                }
                write!(f, " ")?;
            }
            if !problem.path.is_empty() {
                write!(f, "{}: ", problem.path)?;
            }
            write!(f, "{}", problem.message)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_one_line_with_its_place() {
        let problem = |path: &str, line| Problem { path: path.into(), line, message: "is wrong".into() };
        let errors = Errors {
            file: Some("etc/steadfast.toml".into()),
            problems: vec![
                problem("--el[0]", None),
                problem("", None),
                problem("", Some(3)),
                problem("el.primary[0].http", Some(12)),
            ],
        };
        assert_eq!(
            errors.to_string(),
            "--el[0]: is wrong\n\
             etc/steadfast.toml: is wrong\n\
             etc/steadfast.toml:3: is wrong\n\
             etc/steadfast.toml:12: el.primary[0].http: is wrong"
        );
    }
}
