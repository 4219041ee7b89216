//! `steadfast init`: writes a file to start from, with nodes from flags, answers, or another
//! proxy's file.

mod ask;
mod erpc;
mod groups;
mod haproxy;
mod import;
mod nginx;
mod tree;
mod vixy;

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use self::import::{Fate, Import, Node, quoted};
use super::show;
use crate::{
    config::{self, Config, process_env},
    domain::layer::Layer,
};

/// Bytes of another proxy's file, at most.
const MAX_FILE: u64 = 4 << 20;

/// Where to write, and which nodes.
#[derive(Args)]
pub(super) struct Init {
    /// The file to write; `-` for standard output.
    #[arg(value_name = "FILE", default_value = "steadfast.toml")]
    path: PathBuf,
    /// Replace the file if there is one.
    #[arg(long)]
    force: bool,
    /// Take over the file of another proxy: Vixy, eRPC, nginx or haproxy.
    ///
    /// Standard error tells, by line, which settings the lines became, which need none, and which
    /// are left out.
    #[arg(long, value_name = "OTHER_FILE")]
    from: Option<PathBuf>,
    /// The proxy that the other file is for, where its name and content do not tell.
    #[arg(long, value_name = "PROXY", requires = "from")]
    format: Option<Format>,
    /// Ask for the nodes.
    #[arg(long, conflicts_with = "from")]
    ask: bool,
    #[command(flatten)]
    nodes: Nodes,
}

/// Nodes of the file.
#[derive(Args, Default)]
struct Nodes {
    /// A primary execution node: its http(s) URL; repeat the flag for more nodes.
    #[arg(long, value_name = "URL[,WS_URL]", conflicts_with_all = ["from", "ask"])]
    el: Vec<String>,
    /// A backup execution node, used while no primary is well.
    #[arg(long, value_name = "URL[,WS_URL]", conflicts_with_all = ["from", "ask"])]
    el_backup: Vec<String>,
    /// A primary consensus node: its http(s) URL.
    #[arg(long, value_name = "URL", conflicts_with_all = ["from", "ask"])]
    cl: Vec<String>,
    /// A backup consensus node.
    #[arg(long, value_name = "URL", conflicts_with_all = ["from", "ask"])]
    cl_backup: Vec<String>,
    /// Where clients connect.
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["from", "ask"])]
    listen: Option<String>,
}

/// A proxy whose file can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Vixy,
    Erpc,
    Nginx,
    Haproxy,
}

impl Format {
    /// The format by the file's name, or else by its first words.
    fn of(path: &Path, text: &str) -> Option<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => return Some(Self::Erpc),
            Some("toml") => return Some(Self::Vixy),
            _ => {}
        }
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let is_section = |line: &str| {
            let word = line.split_whitespace().next().unwrap_or_default();
            ["global", "defaults", "frontend", "backend", "listen"].contains(&word)
        };
        match lines().next()? {
            first if is_section(first) && !first.ends_with([';', '{']) => Some(Self::Haproxy),
            _ if lines().any(|line| line.ends_with([';', '{'])) => Some(Self::Nginx),
            _ if lines().any(|line| line.starts_with("projects:")) => Some(Self::Erpc),
            _ if lines().any(|line| line.starts_with('[')) => Some(Self::Vixy),
            _ => None,
        }
    }

    fn read(self, text: &str, import: &mut Import) -> Result<(), String> {
        match self {
            Self::Vixy => vixy::read(text, import),
            Self::Erpc => erpc::read(text, import),
            Self::Nginx => nginx::read(text, import),
            Self::Haproxy => haproxy::read(text, import),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Vixy => "Vixy",
            Self::Erpc => "eRPC",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }
}

pub(super) fn run(init: &Init) -> ExitCode {
    let text = match text(init) {
        Ok(text) => text,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    if init.path.as_os_str() == "-" {
        show(text);
        return ExitCode::SUCCESS;
    }
    // URLs of nodes, and their headers, may hold keys.
    let has_nodes = text != config::example();
    let mut options = OpenOptions::new();
    options.write(true).mode(if has_nodes { 0o600 } else { 0o666 });
    match init.force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let path = init.path.display();
    let written = options.open(&init.path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        Ok(file.metadata()?.permissions().mode())
    });
    match written {
        Ok(mode) => {
            let name = if has_nodes { "Next" } else { "Name your nodes in it, then" };
            show(format_args!("{path} is written. {name}: steadfast check --config {path}\n"));
            if has_nodes && mode & 0o004 != 0 {
                eprintln!(
                    "{path} can be read by every user of this machine: chmod 600 where a URL or header has a key"
                );
            }
            ExitCode::SUCCESS
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            eprintln!("{path} is there already; --force replaces it");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{path}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The text of the file to write.
fn text(init: &Init) -> Result<String, String> {
    if let Some(from) = &init.from {
        let text = read(from).map_err(|error| format!("{}: cannot be read: {error}", from.display()))?;
        let (text, told) = taken_over(from, &text, init.format)?;
        eprint!("{told}");
        return Ok(text);
    }
    let asked;
    let nodes = if init.ask {
        asked = ask::nodes(&mut io::stdin().lock(), &mut io::stderr())?;
        &asked
    } else {
        &init.nodes
    };
    match named(nodes)? {
        Some(text) => Ok(text),
        None => Ok(config::example().to_owned()),
    }
}

/// The text of a file that is not longer than [`MAX_FILE`].
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "is longer than 4 MiB"));
    }
    Ok(text)
}

/// A file with these nodes; `None` where there are none.
fn named(Nodes { el, el_backup, cl, cl_backup, listen }: &Nodes) -> Result<Option<String>, String> {
    let mut import = Import::default();
    if let Some(listen) = listen {
        import.set(0, "--listen", "listen", quoted(listen));
    }
    for (urls, layer, is_backup) in
        [(el, Layer::El, false), (el_backup, Layer::El, true), (cl, Layer::Cl, false), (cl_backup, Layer::Cl, true)]
    {
        for (at, urls) in urls.iter().enumerate() {
            let name = format!("{}-{}{}", layer.as_str(), if is_backup { "backup-" } else { "" }, at + 1);
            let (first, second) = urls.split_once(',').map_or((&**urls, None), |(first, second)| (first, Some(second)));
            let mut node = Node::new(layer, is_backup, &name, first.to_owned());
            match second {
                Some(ws) if node.http.is_some() && layer == Layer::El => node.ws = Some(ws.to_owned()),
                Some(_) => {
                    return Err(format!("{name}: a WebSocket URL goes behind the http URL of an execution node"));
                }
                None => {}
            }
            import.add(0, "", "", node);
        }
    }
    if !import.has_nodes() {
        return if listen.is_some() { Err("name a node too, with --el or --cl".to_owned()) } else { Ok(None) };
    }
    let text = import.file(HEAD);
    match Config::parse(&text, &process_env) {
        Ok(_) => Ok(Some(text)),
        Err(errors) => Err(errors
            .problems
            .iter()
            .map(|one| format!("{}: {}", one.path, one.message))
            .collect::<Vec<_>>()
            .join("\n")),
    }
}

const HEAD: &str = "# Settings of Steadfast. Every other setting, with its default: `steadfast init -`.";

/// The file that the `text` of another proxy's file becomes, and the report on that text.
fn taken_over(from: &Path, text: &str, format: Option<Format>) -> Result<(String, String), String> {
    let place = from.display();
    let format = format.or_else(|| Format::of(from, text));
    let format = format
        .ok_or_else(|| format!("{place}: neither its name nor its content tells the proxy: name it with --format"))?;
    let mut import = Import::default();
    format.read(text, &mut import).map_err(|why| format!("{place}:{why}"))?;
    if !import.has_nodes() {
        let left: Vec<String> = import.notes.iter().map(|note| format!("{place}:{note}\n")).collect();
        return Err(format!("{}{place}: no node was found, read as a file of {}", left.concat(), format.as_str()));
    }
    let head = format!("{HEAD}\n# Taken over from a file of {}.", format.as_str());
    let written = import.file(&head);
    Ok((written.clone(), report(&import, &place.to_string(), format, &written)))
}

/// Tells the fate of each line, and the work that is left.
fn report(import: &Import, place: &str, format: Format, written: &str) -> String {
    let mut notes = import.notes.clone();
    notes.sort_by_key(|note| note.line);
    let list = |head: &str, wanted: fn(&Fate) -> bool| {
        let lines: Vec<String> =
            notes.iter().filter(|note| wanted(&note.fate)).map(|note| format!("  {place}:{note}\n")).collect();
        if lines.is_empty() { String::new() } else { format!("{head}\n{}", lines.concat()) }
    };
    let mut told = format!("read as a file of {}\n", format.as_str());
    told += &list("taken over:", |fate| matches!(fate, Fate::Became(_)));
    told += &list("nothing to set:", |fate| matches!(fate, Fate::NotNeeded(_)));
    told += &list("left out:", |fate| matches!(fate, Fate::Left(_)));
    if let Err(errors) = Config::parse(written, &process_env) {
        told += "to mend in the new file before it runs:\n";
        for problem in &errors.problems {
            let line = problem.line.map(|line| format!("line {line}: ")).unwrap_or_default();
            told += &format!("  {line}{}: {}\n", problem.path, problem.message);
        }
    }
    told
}

#[cfg(test)]
mod tests;
