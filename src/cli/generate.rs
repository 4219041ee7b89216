//! `steadfast config schema`, `completions` and `man`: files for editors, shells and readers.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};
use clap_complete::Shell;

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
    print(format!("{:#}\n", config::schema()).as_bytes())
}

/// Prints the script.
pub(super) fn completions(asked: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut super::command(), "steadfast", &mut script);
    print(&script)
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

/// Prints to standard output. A reader that closes its end early, such as `head`, is no failure.
fn print(text: &[u8]) -> ExitCode {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
