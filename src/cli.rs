//! The command line.

mod admin;
mod check;
mod dev;
mod fleet;
mod generate;
mod help;
mod init;
mod log;
mod outbox;
mod run;
mod status;
mod switch;
mod table;
mod top;

use std::{
    fmt::Display,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Config, Errors, Flags, process_env};

/// One address in front of a pool of Ethereum nodes: calls are answered while nodes die and return.
#[derive(Parser)]
#[command(name = "steadfast", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy.
    ///
    /// Nodes come from a file, or from flags:
    ///
    ///   steadfast run --el http://127.0.0.1:18545 --el-backup https://eth.example/v2/KEY
    ///
    /// Without either, ./steadfast.toml is read. SIGTERM and Ctrl-C let calls finish, a second one
    /// ends the process at once; SIGHUP reads the file anew.
    #[command(verbatim_doc_comment)]
    Run(Settings),
    /// Run the proxy in front of a pretend network, with nothing else to install.
    ///
    /// Starts a pretend chain with execution nodes, and the proxy in front of them, all in this
    /// process; prints where to point a wallet and how to kill a node.
    Dev(dev::Dev),
    /// Read the settings, ask every node for its state and its methods, and print two tables.
    ///
    /// Exits with 0 if all is well, so that a deployment can stop elsewhere: with 2 if a setting is
    /// wrong, 3 if a node does not answer, 4 if a node is on another chain, 5 if a node is not in
    /// sync, and 1 if a node is not well for another reason or nodes for different ones.
    Check(check::Check),
    /// Print the nodes of a running proxy as it sees them.
    ///
    /// Exits with 1 if the proxy cannot be reached or is not ready.
    Status(status::Status),
    /// Watch a running proxy live over the whole terminal: nodes, calls, switches.
    ///
    /// Keys: q quits; arrows and tab select a node; c cordons the node, u uncordons it, and d
    /// drains the proxy, each after a question. Where the proxy does not answer, the view tells
    /// since when, and why.
    Top(top::Top),
    /// Take a node of a running proxy out of use: it gets no new calls, and stays probed.
    ///
    /// The cordon outlives a reload, and ends with `steadfast uncordon` or with the process.
    /// Cordoning the last node of a side is done, with a warning: calls then wait for calls.hold,
    /// and fail.
    Cordon(switch::Node),
    /// Let a cordoned node be used again.
    Uncordon(switch::Node),
    /// Wish something of all replicas of a cluster: a node out of use, or another level of the log.
    #[command(subcommand)]
    Fleet(fleet::Fleet),
    /// Have a running proxy say that it is not ready, so that load balancers send it nothing new;
    /// it serves on.
    Drain(switch::Proxy),
    /// End a drain.
    Undrain(switch::Proxy),
    /// Have a running proxy read its file anew.
    ///
    /// All of it is applied, or nothing. Exits with 1, and says why, if nothing was.
    Reload(switch::Proxy),
    /// See and manage the transactions that a running proxy keeps ([outbox] in its settings).
    #[command(subcommand)]
    Outbox(outbox::Outbox),
    /// Write a configuration file to start from: a commented one with every setting, or one with
    /// nodes from flags, answers (--ask) or the file of another proxy (--from).
    Init(init::Init),
    /// Describe the configuration file to programs.
    #[command(subcommand)]
    Config(generate::About),
    /// Print a script by which a shell completes the commands and their flags.
    ///
    ///   steadfast completions bash > /etc/bash_completion.d/steadfast
    #[command(verbatim_doc_comment)]
    Completions(generate::Completions),
    /// Write the manual pages, one for each command.
    ///
    ///   steadfast man /usr/local/share/man/man1
    #[command(verbatim_doc_comment)]
    Man(generate::Man),
}

/// Where the settings come from.
#[derive(Args, Clone)]
struct Settings {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A primary execution node: its http(s) URL; repeat the flag for more nodes.
    #[arg(long, value_name = "URL[,WS_URL]")]
    el: Vec<String>,
    /// A backup execution node, used while no primary is well.
    #[arg(long, value_name = "URL[,WS_URL]")]
    el_backup: Vec<String>,
    /// A primary consensus node: its http(s) URL.
    #[arg(long, value_name = "URL")]
    cl: Vec<String>,
    /// A backup consensus node.
    #[arg(long, value_name = "URL")]
    cl_backup: Vec<String>,
    /// Where clients connect: an address, or unix:PATH. [default: 127.0.0.1:8545]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where metrics, status and switches are. [default: 127.0.0.1:9545]
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
}

/// How a file is read.
type Load = fn(&Path, &Flags, &dyn Fn(&str) -> Option<String>) -> Result<Config, Errors>;

impl Settings {
    /// The file that is read, if one is.
    fn file(&self) -> Option<PathBuf> {
        let names_nodes = [&self.el, &self.el_backup, &self.cl, &self.cl_backup].iter().any(|nodes| !nodes.is_empty());
        match &self.config {
            Some(path) => Some(path.clone()),
            None if names_nodes => None,
            None => Some(PathBuf::from("steadfast.toml")),
        }
    }

    fn read(&self) -> Result<Config, Errors> {
        self.load(Config::load)
    }

    /// [`Settings::read`] while the proxy runs.
    fn read_again(&self) -> Result<Config, Errors> {
        self.load(Config::load_again)
    }

    fn load(&self, load: Load) -> Result<Config, Errors> {
        let flags = Flags {
            el: self.el.clone(),
            el_backup: self.el_backup.clone(),
            cl: self.cl.clone(),
            cl_backup: self.cl_backup.clone(),
            listen: self.listen.clone(),
            admin_listen: self.admin_listen.clone(),
        };
        match self.file() {
            Some(path) => load(&path, &flags, &process_env),
            None => Config::from_flags(&flags),
        }
    }

    /// Reads the settings, or prints all mistakes in the settings with a remedy.
    fn read_or_complain(&self) -> Result<Config, ExitCode> {
        self.read().map_err(|errors| {
            eprintln!("{errors}");
            match (&self.config, self.file()) {
                (None, Some(path)) if !path.exists() => {
                    eprintln!("name nodes with --el, a file with --config, or write one with `steadfast init`");
                }
                (Some(path), _) if !path.exists() => {
                    eprintln!("is the path right? `steadfast init {}` writes a file to start from", path.display());
                }
                _ => {}
            }
            ExitCode::from(2)
        })
    }
}

/// The command line, as files are made of it.
fn command() -> clap::Command {
    help::with_stops(Cli::command())
}

/// The command line with clap's own options and texts.
fn built() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    help::with_stops(command)
}

/// Reads the words that the process was started with. A wrong word and --help end the process.
fn read() -> Cli {
    let matches = built().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    match read().command {
        Command::Run(settings) => run::run(&settings),
        Command::Dev(dev) => dev::run(&dev),
        Command::Check(check) => check::run(&check),
        Command::Status(status) => status::run(&status),
        Command::Top(top) => top::run(&top),
        Command::Cordon(node) => switch::cordon(&node, true),
        Command::Uncordon(node) => switch::cordon(&node, false),
        Command::Fleet(fleet) => fleet::run(&fleet),
        Command::Drain(proxy) => switch::drain(&proxy, true),
        Command::Undrain(proxy) => switch::drain(&proxy, false),
        Command::Reload(proxy) => switch::reload(&proxy),
        Command::Outbox(outbox) => outbox::run(&outbox),
        Command::Init(init) => init::run(&init),
        Command::Config(about) => generate::config(&about),
        Command::Completions(completions) => generate::completions(&completions),
        Command::Man(man) => generate::man(&man),
    }
}

/// Blocks on `work` on this thread.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        eprintln!("cannot start: {error}");
        ExitCode::FAILURE
    })?;
    let done = runtime.block_on(work);
    // A name that is still being looked up, which the system does not let go of, is not waited for.
    runtime.shutdown_background();
    Ok(done)
}

/// Prints a text that a command is asked for. A reader that closes its end early, such as `head`,
/// is no failure; a text that cannot be written otherwise ends the process.
fn show(text: impl Display) {
    let mut output = io::stdout().lock();
    match write!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("standard output: {error}");
            process::exit(1);
        }
        _ => {}
    }
}

/// The exit code of a proxy that has run, or has printed why running failed.
fn conclude(served: Result<Result<ExitCode, String>, ExitCode>) -> ExitCode {
    match served {
        Ok(Ok(code)) => code,
        Ok(Err(why)) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
        Err(code) => code,
    }
}
