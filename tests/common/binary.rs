//! The binary as a process of its own: its file, its log, its signals, and what the system says of
//! it.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

/// Free ports, for the head of a file.
pub const ADDRESSES: &str = "listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n";

/// A running `steadfast`; killed when dropped.
pub struct Binary {
    child: Child,
    file: PathBuf,
    log: Arc<(Mutex<String>, Condvar)>,
    /// How much of the log was looked through for lines.
    heard: usize,
    ended: Option<ExitStatus>,
}

impl Binary {
    /// Runs the binary with a file that holds `text`.
    pub fn run(text: &str) -> Self {
        Self::run_after(text, &[])
    }

    /// The same after these commands of a shell, such as `ulimit -v 524288`.
    pub fn run_after(text: &str, before: &[&str]) -> Self {
        Self::run_with(text, before, Stdio::null(), Stdio::null())
    }

    /// The same with these as the shell's standard input and output.
    pub fn run_with(text: &str, before: &[&str], input: Stdio, output: Stdio) -> Self {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let name = format!("binary-{}-{}.toml", std::process::id(), FILES.fetch_add(1, SeqCst));
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&file, text).unwrap();
        Self::run_script(file, before, [input, output])
    }

    /// Runs the binary with this file, which goes when the process is dropped.
    pub fn run_file(file: &Path) -> Self {
        Self::run_script(file.to_owned(), &[], [Stdio::null(), Stdio::null()])
    }

    fn run_script(file: PathBuf, before: &[&str], [input, output]: [Stdio; 2]) -> Self {
        let script = [before, &["exec \"$0\" run --config \"$1\""]].concat().join(" && ");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_steadfast")]).arg(&file).stdin(input).stdout(output);
        Self::spawn(command, file)
    }

    /// Runs the pretend network with free ports. Its output is in the log, too.
    pub fn dev(more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        command.arg("dev").stdin(Stdio::null()).stdout(Stdio::piped());
        for port in ["--listen", "--admin-listen", "--control"] {
            command.args([port, "127.0.0.1:0"]);
        }
        command.args(more);
        Self::spawn(command, PathBuf::new())
    }

    fn spawn(mut command: Command, file: PathBuf) -> Self {
        command.env_remove("STEADFAST_UNSET").stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::<(Mutex<String>, Condvar)>::default();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let out = out.map(|out| Box::new(out) as Box<dyn Read + Send>);
        for from in out.into_iter().chain(err.map(|err| Box::new(err) as Box<dyn Read + Send>)) {
            let (lines, into) = (BufReader::new(from).lines(), log.clone());
            thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    let mut log = into.0.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                    into.1.notify_all();
                }
            });
        }
        Self { child, file, log, heard: 0, ended: None }
    }

    /// Changes its file to hold `text`.
    pub fn rewrite(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    /// The file that it reads.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has written.
    pub fn log(&self) -> String {
        self.log.0.lock().unwrap().clone()
    }

    /// Waits, with its thread, for a further line of the log with these words.
    pub fn until_it_says(&mut self, words: &str, time_limit: Duration) -> String {
        let (log, more) = &*self.log;
        let mut log = log.lock().unwrap();
        let start = self.heard;
        loop {
            while let Some(length) = log[self.heard..].find('\n') {
                let line = log[self.heard..self.heard + length].to_owned();
                self.heard += length + 1;
                if line.contains(words) {
                    return line;
                }
            }
            let (again, waited) = more.wait_timeout(log, time_limit).unwrap();
            log = again;
            assert!(!waited.timed_out(), "it does not say {words:?}:\n{}", &log[start..]);
        }
    }

    /// An address that it says it listens on: `clients` or `admin`.
    pub fn address(&self, key: &str) -> Option<SocketAddr> {
        let log = self.log();
        let (_, rest) = log.split_once(&format!("{key}="))?;
        rest.split_whitespace().next()?.parse().ok()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.ended = self.ended.or(self.child.try_wait().unwrap());
        self.ended
    }

    /// Waits, with its thread, for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// A figure of `/proc/<pid>/status` that is told in kB, such as `VmHWM`; here in bytes.
    pub fn figure(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a figure");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log.0.lock().map(|log| log.clone()).unwrap_or_default();
            eprintln!("the process wrote at last:\n{}", &log[log.len().saturating_sub(2000)..]);
        }
        // The process may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}
