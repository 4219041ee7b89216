//! The texts of `--help`: each ends with a full stop.
//!
//! clap takes the full stop from a short text, leaves a long or verbatim text as it is, and has
//! texts of its own without a full stop.

use clap::{Arg, Command, builder::StyledStr};

/// Ends the texts of the command, of its options and of its subcommands with full stops.
pub(super) fn with_stops(mut command: Command) -> Command {
    if let Some(about) = command.get_about().map(stopped) {
        command = command.about(about);
    }
    if let Some(about) = command.get_long_about().map(stopped) {
        command = command.long_about(about);
    }
    command.mut_args(with_stop).mut_subcommands(with_stops)
}

fn with_stop(mut arg: Arg) -> Arg {
    if let Some(help) = arg.get_help().map(stopped) {
        arg = arg.help(help);
    }
    if let Some(help) = arg.get_long_help().map(stopped) {
        arg = arg.long_help(help);
    }
    arg
}

/// The text with a full stop at its end, unless the end is an example or a default in brackets.
fn stopped(text: &StyledStr) -> String {
    let text = text.to_string();
    let last = text.lines().last().unwrap_or_default();
    let is_whole = last.starts_with("  ") || last.ends_with(['.', ']']);
    if is_whole { text } else { text + "." }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command as Words, built};

    /// The places of all texts below `command`, and the texts.
    fn texts(command: &Command, place: &str, found: &mut Vec<(String, String)>) {
        let place = format!("{place} {}", command.get_name());
        let mut keep =
            |place: String, text: Option<&StyledStr>| found.extend(text.map(|text| (place, text.to_string())));
        keep(place.clone(), command.get_about());
        keep(place.clone(), command.get_long_about());
        for arg in command.get_arguments() {
            let place = format!("{place} {}", arg.get_id());
            assert!(arg.get_help().is_some(), "{place} has no text");
            keep(place.clone(), arg.get_help());
            keep(place, arg.get_long_help());
        }
        command.get_subcommands().for_each(|command| texts(command, &place, found));
    }

    #[test]
    fn every_text_of_the_help_ends_with_a_full_stop() {
        let mut found = Vec::new();
        texts(&built(), "", &mut found);
        assert!(found.len() > 80, "this test no longer finds the texts: {found:?}");
        for (place, text) in found {
            let last = text.lines().last().unwrap_or_default();
            // A default stands behind the full stop, as those that clap writes.
            let prose =
                last.rsplit_once(" [default: ").filter(|_| last.ends_with(']')).map_or(last, |(prose, _)| prose);
            assert!(last.starts_with("  ") || prose.ends_with('.'), "{place}: {text}");
            assert!(!prose.ends_with(".."), "{place}: {text}");
            assert!(text.starts_with(|first: char| first.is_uppercase()), "{place}: {text}");
        }
    }

    #[test]
    fn a_command_line_is_read_as_before() {
        use clap::FromArgMatches;
        let line = ["steadfast", "cordon", "el-1", "--admin", "127.0.0.1:1"];
        let matches = built().try_get_matches_from(line).unwrap();
        assert!(matches!(Cli::from_arg_matches(&matches).unwrap().command, Words::Cordon(_)));
        let error = built().try_get_matches_from(["steadfast", "cordon", "--help"]).unwrap_err();
        assert!(error.to_string().contains("Usage: steadfast cordon [OPTIONS] <NODE>"), "{error}");
        let error = built().try_get_matches_from(["steadfast", "help", "config", "schema"]).unwrap_err();
        assert!(error.to_string().contains("Print a JSON Schema of the configuration file.\n"), "{error}");
    }
}
