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
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use self::import::{Fate, Import, Node, quoted};
use crate::{
    config::{self, Config, process_env},
    domain::layer::Layer,
};

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
        print!("{text}");
        return ExitCode::SUCCESS;
    }
    let mut options = OpenOptions::new();
    options.write(true);
    match init.force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let path = init.path.display();
    match options.open(&init.path).and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => {
            let name = if text == config::example() { "Name your nodes in it, then" } else { "Next" };
            println!("{path} is written. {name}: steadfast check --config {path}");
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
        let text = fs::read_to_string(from).map_err(|error| format!("{}: cannot be read: {error}", from.display()))?;
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
mod tests {
    use super::*;

    const FOLDER: &str = "tests/it/migration";

    /// Compares the file and the report that come of an example with those beside it. `UPDATE=1`
    /// writes them anew.
    fn golden(example: &str, format: Format) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
        let text = fs::read_to_string(folder.join(example)).unwrap();
        let path = Path::new(example);
        assert_eq!(Format::of(path, &text), Some(format));
        let (written, told) = taken_over(path, &text, None).unwrap();
        let name = example.split('.').next().unwrap();
        for (found, file) in [(written.clone(), format!("{name}.steadfast.toml")), (told, format!("{name}.report.txt"))]
        {
            let file = folder.join(file);
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&file, &found).unwrap();
            }
            let expected = fs::read_to_string(&file).unwrap();
            assert_eq!(found, expected, "{} differs; UPDATE=1 writes it anew", file.display());
        }
        let env = |name: &str| (name == "INFURA_KEY").then(|| "k3y".to_owned());
        Config::parse(&written, &env).unwrap_or_else(|errors| panic!("{errors}\n{written}"));
    }

    #[test]
    fn a_file_of_vixy_is_taken_over() {
        golden("vixy.toml", Format::Vixy);
    }

    #[test]
    fn a_file_of_erpc_is_taken_over() {
        golden("erpc.yaml", Format::Erpc);
    }

    #[test]
    fn a_file_of_nginx_is_taken_over() {
        golden("nginx.conf", Format::Nginx);
    }

    #[test]
    fn a_file_of_haproxy_is_taken_over() {
        golden("haproxy.cfg", Format::Haproxy);
    }

    #[test]
    fn a_report_shows_no_value_of_the_other_file() {
        let files = [
            (
                "a.toml",
                "s3cret = \"v4lue\"\n[[cl]]\nname = \"a\"\n\
                 url = \"http://a/v4lue\"\nkey = \"v4lue\"\n",
            ),
            (
                "a.yaml",
                "auth: v4lue\nprojects:\n- id: x\n  upstreams:\n\
                 \x20 - endpoint: alchemy://v4lue\n\
                 \x20 - endpoint: http://a/v4lue\n",
            ),
            (
                "a.conf",
                "upstream x { server a:1 v4lue_no=v4lue; }\n\
                 server { location / { proxy_set_header X v4lue;\n\
                 proxy_pass http://x/v4lue; } }\n",
            ),
            (
                "a.cfg",
                "backend x\n http-request set-header X v4lue\n\
                 \x20server a a:1 weight v4lue\n stats auth v4lue\n",
            ),
        ];
        for (path, text) in files {
            let (_, told) = taken_over(Path::new(path), text, None).unwrap();
            let told = told.replace("v4lue_no", "");
            assert!(!told.contains("v4lue"), "{path}: {told}");
        }
    }

    #[test]
    fn a_file_without_nodes_or_format_is_refused() {
        let refused = |path: &str, text: &str| taken_over(Path::new(path), text, None).unwrap_err();
        assert!(refused("x", "hello\n").ends_with("name it with --format"));
        let why = refused("x.yaml", "logLevel: info\nnonsense: 1\n");
        assert!(why.contains("x.yaml:2: nonsense: is not known") && why.contains("no node was found"), "{why}");
        assert!(refused("x.toml", "a = \n").starts_with("x.toml:1: is not TOML"));
    }

    #[test]
    fn flags_make_a_file_that_is_right() {
        let nodes = Nodes {
            el: ["http://10.0.0.1:8545,ws://10.0.0.1:8546", "http://10.0.0.2:8545"].map(str::to_owned).to_vec(),
            cl_backup: vec!["http://10.0.0.3:5052".into()],
            listen: Some("0.0.0.0:8545".into()),
            ..Nodes::default()
        };
        let text = named(&nodes).unwrap().unwrap();
        let config = Config::parse(&text, &|_| None).unwrap();
        assert_eq!(config.listen, [([0, 0, 0, 0], 8545).into()]);
        let [one, two] = &*config.networks[0].el else { panic!("{text}") };
        assert!(one.ws.is_some() && two.ws.is_none() && config.networks[0].cl.len() == 1);
        let wrong = Nodes { el: vec!["ftp://a".into()], ..Nodes::default() };
        let why = named(&wrong).unwrap_err();
        assert!(why.starts_with("el.primary[0].http: "), "{why}");
        assert_eq!(named(&Nodes::default()), Ok(None));
    }
}
