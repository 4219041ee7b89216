//! The forms that values of the file have.

use std::ops::RangeInclusive;

/// The form of a key's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Any string.
    Text,
    /// A whole number and a unit of time.
    Duration,
    /// A whole number and a unit of bytes.
    Size,
    /// Any of these words.
    Choice(Vec<String>),
    /// A whole number of this range.
    Integer(RangeInclusive<u64>),
    /// `true` or `false`.
    Boolean,
    /// Strings.
    List,
    /// Strings, or a single one.
    OneOrMore,
    /// Strings under free names.
    StringTable,
    /// Whole numbers of this range under free names.
    IntegerTable(RangeInclusive<u64>),
    /// A table.
    Table,
    /// Tables, `[[key]]`.
    Tables,
}

impl Form {
    /// The form of a string, as an error names it.
    pub(super) fn in_words(&self) -> &'static str {
        match self {
            Self::Duration => "a string with a unit, such as \"1s\"",
            Self::Size => "a string with a unit, such as \"10MiB\"",
            _ => "a string",
        }
    }
}
