//! `steadfast init`.

use std::{fs::OpenOptions, io::Write, path::PathBuf, process::ExitCode};

use clap::Args;

use crate::config;

/// Where to write.
#[derive(Args)]
pub(super) struct Init {
    /// The file to write; `-` for standard output.
    #[arg(value_name = "FILE", default_value = "steadfast.toml")]
    path: PathBuf,
    /// Replace the file if there is one.
    #[arg(long)]
    force: bool,
}

pub(super) fn run(init: &Init) -> ExitCode {
    if init.path.as_os_str() == "-" {
        print!("{}", config::example());
        return ExitCode::SUCCESS;
    }
    let mut options = OpenOptions::new();
    options.write(true);
    match init.force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let path = init.path.display();
    match options.open(&init.path).and_then(|mut file| file.write_all(config::example().as_bytes())) {
        Ok(()) => {
            println!("{path} is written. Name your nodes in it, then: steadfast check --config {path}");
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            eprintln!("{path} is there already; --force replaces it");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{path}: {error}");
            ExitCode::FAILURE
        }
    }
}
