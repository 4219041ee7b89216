//! `steadfast top` on a terminal of its own.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command},
    sync::{Arc, Mutex},
    thread,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize},
};
use steadfast::devnet::Options;

use super::process::{QUICK, command, running};
use crate::common::{devnet, proxy::nodes, until};

/// A terminal, and the program that runs on it.
struct Terminal {
    /// The side of the one who sits before it.
    keys: File,
    /// The program's side.
    line: File,
    shown: Arc<Mutex<String>>,
    child: Child,
}

impl Terminal {
    fn run(words: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let line = File::options().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&line, Winsize { ws_row: 40, ws_col: 150, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let side = || line.try_clone().unwrap();
        let mut start = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        let child = start.args(words).stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let keys = File::from(master);
        let (mut screen, shown) = (keys.try_clone().unwrap(), Arc::<Mutex<String>>::default());
        let into = shown.clone();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = screen.read(&mut piece) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..read]));
            }
        });
        Self { keys, line, shown, child }
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.line).unwrap()
    }

    /// Waits until these words were written since the last wait.
    async fn shows(&self, words: &str) {
        until(words, async || {
            let mut shown = self.shown.lock().unwrap();
            let is_there = shown.contains(words);
            if is_there {
                shown.clear();
            }
            is_there
        })
        .await;
    }

    async fn ends(&mut self) -> i32 {
        let mut status = None;
        until("it ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap().code().expect("no signal killed it")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn top_gives_the_terminal_back_however_it_ends() {
    let devnet = devnet(Options::default()).await;
    let (_process, _, admin) = running(format!("{QUICK}{}", nodes([&*devnet.el(0).http_url()]))).await;
    for end in ["q", "\x03", "INT", "TERM"] {
        let mut terminal = Terminal::run(&["top", "--admin", &admin]);
        terminal.shows("calls go to el-1").await;
        let cooked = LocalModes::ICANON | LocalModes::ECHO;
        assert!(!terminal.modes().local_modes.intersects(cooked), "keys are read one by one");
        if end.len() == 1 {
            terminal.keys.write_all(end.as_bytes()).unwrap();
        } else {
            let id = terminal.child.id().to_string();
            assert!(Command::new("kill").args([&format!("-{end}"), &id]).status().unwrap().success());
        }
        assert_eq!(terminal.ends().await, 0, "{end:?}");
        assert!(terminal.modes().local_modes.contains(cooked), "{end:?}: the terminal is as before");
        // The screen of before is back.
        terminal.shows("\x1b[?1049l").await;
    }
}

#[tokio::test]
async fn a_node_is_cordoned_from_the_terminal() {
    let devnet = devnet(Options::default()).await;
    let (one, two) = (devnet.el(0).http_url(), devnet.el(1).http_url());
    let (_process, _, admin) = running(format!("{QUICK}{}", nodes([&*one, &*two]))).await;
    let mut terminal = Terminal::run(&["top", "--admin", &admin]);
    terminal.shows("calls go to el-1").await;
    terminal.keys.write_all(b"c").unwrap();
    terminal.shows("Cordon el-1").await;
    let status = async || command(&["status", "--admin", &admin]).await.1;
    assert!(!status().await.contains("cordoned"), "a key alone does nothing");
    terminal.keys.write_all(b"y").unwrap();
    until("the node is cordoned", async || status().await.contains("cordoned (up)")).await;
}

#[tokio::test]
async fn top_shows_no_password_of_its_url() {
    let devnet = devnet(Options::default()).await;
    let (_process, _, admin) = running(format!("{QUICK}{}", nodes([&*devnet.el(0).http_url()]))).await;
    for (host, words) in [(&*admin, "calls go to el-1"), ("127.0.0.1:1", "no answer")] {
        let terminal = Terminal::run(&["top", "--admin", &format!("http://operator:s3cret@{host}")]);
        let mut shown = String::new();
        until(words, async || {
            shown.clone_from(&terminal.shown.lock().unwrap());
            shown.contains(words)
        })
        .await;
        assert!(shown.contains(&format!("http://***@{host}")) && !shown.contains("s3cret"), "{shown:?}");
    }
}

#[tokio::test]
async fn top_without_a_terminal_says_so() {
    let (code, _, why) = command(&["top"]).await;
    assert!(code == 2 && why.contains("top needs a terminal"), "{code} {why}");
}
