//! `steadfast config schema`, `completions` and `man`: files for editors, shells and readers.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use clap_complete::Shell;

use super::show;
use crate::config;

/// Questions about the configuration file.
#[derive(Subcommand)]
pub(super) enum About {
    /// Print a JSON Schema of the configuration file.
    ///
    /// Editors complete keys by the schema, show what a key means, and mark mistakes. With the
    /// language server taplo (Even Better TOML), the first line of the file names the schema:
    ///
    ///   #:schema ./steadfast.schema.json
    #[command(verbatim_doc_comment)]
    Schema,
}

/// For which shell.
#[derive(Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Where to write.
#[derive(Args)]
pub(super) struct Man {
    /// The folder to write the pages into.
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

/// Prints the answer.
pub(super) fn config(about: &About) -> ExitCode {
    let About::Schema = about;
    show(format_args!("{:#}\n", config::schema()));
    ExitCode::SUCCESS
}

/// Prints the script.
pub(super) fn completions(asked: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut super::command(), "steadfast", &mut script);
    show(String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

/// Writes the pages.
pub(super) fn man(asked: &Man) -> ExitCode {
    match clap_mangen::generate_to(super::command(), &asked.folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", asked.folder.display());
            ExitCode::FAILURE
        }
    }
}
