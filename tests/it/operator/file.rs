//! The file of the settings: what a reload of it would do, and the reload when it has changed.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, mpsc},
    time::Duration,
};

use steadfast::{
    app::{App, World},
    devnet::Options,
};
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::process::{QUICK, command, running, says};
use crate::common::{
    self, SOON,
    binary::Binary,
    client::{Client, call},
    devnet,
    origin::{Origin, Reply},
    proxy::{config, nodes},
    until,
};

#[tokio::test]
async fn a_dry_reload_tells_what_a_reload_would_do() {
    let devnet = devnet(Options::default()).await;
    let (one, two) = (devnet.el(0).http_url(), devnet.el(1).http_url());
    let (process, _, admin) = running(format!("{QUICK}{}", nodes([&*one, &*two]))).await;
    let file = process.file().to_str().unwrap().to_owned();
    let at = ["--admin", &*admin];
    let diff = async |more: &[&str]| command(&[&["check", "--diff"], &at[..], more].concat()).await;

    let (code, said, _) = diff(&["--config", &file]).await;
    assert_eq!((code, said), (0, format!("a reload of {file} would change nothing\n")));

    let third = "[[el.backup]]\nname = \"third\"\nhttp = \"http://10.0.0.9/v2/s3cret\"\n";
    process.rewrite(&format!("{QUICK}fall = 9\n{}{third}", nodes([&*one])));
    let (code, said, why) = diff(&[]).await;
    assert_eq!(
        (code, said),
        (
            1,
            format!(
                "a reload of {file} would\n  \
                 add     default el third (backup)  http://10.0.0.9/v2/***\n  \
                 remove  default el el-2 (primary)\n  \
                 change  health.fall: 3 → 9\n"
            )
        ),
        "{why}"
    );
    let (_, status, _) = command(&[&["status"], &at[..]].concat()).await;
    assert!(status.contains("el-2") && !status.contains("third"), "a dry reload changes nothing: {status}");

    process.rewrite(&format!("workers = 7\n{QUICK}{}", nodes([&*one, &*two])));
    let (code, _, why) = diff(&[]).await;
    assert_eq!(code, 2, "{why}");
    assert!(why.contains("workers: cannot be changed while the proxy runs"), "{why}");
    assert!(why.contains("change  workers: not set → 7  (needs a restart)"), "{why}");

    process.rewrite(&format!("{QUICK}hopla = 7\n{}", nodes([&*one])));
    let (code, _, why) = diff(&[]).await;
    assert!(code == 2 && why.contains("health.hopla: is not a known key"), "{code} {why}");

    let (code, _, why) = diff(&["--config", "/nowhere/else.toml"]).await;
    assert!(code == 2 && why.contains("hopla"), "{code} {why}");
    process.rewrite(&format!("{QUICK}{}", nodes([&*one, &*two])));
    let (code, _, why) = diff(&["--config", "/nowhere/else.toml"]).await;
    assert!(code == 2 && why.contains("and not /nowhere/else.toml"), "{code} {why}");
    let (code, _, why) = diff(&["--el", "http://10.0.0.1"]).await;
    assert!(code == 2 && why.contains("leave the flags out"), "{code} {why}");

    let mut client = Client::connect(admin.parse().unwrap()).await;
    client.send(format!("POST /reload?dry=yes HTTP/1.1\r\nhost: {admin}\r\ncontent-length: 0\r\n\r\n")).await;
    assert_eq!(client.response().await.status, 400, "another word for it reloads nothing");
    assert!(!process.log().contains("configuration"), "no reload was done: {}", process.log());
    drop(process);
    let (code, _, why) = diff(&[]).await;
    assert!(code == 3 && why.contains("does not answer"), "{code} {why}");
    let (code, _, why) = command(&["check", "--admin", &admin, "--el", "http://127.0.0.1:1"]).await;
    assert!(code == 2 && why.contains("only --diff asks"), "{code} {why}");
}

/// A node whose answers say which one it is.
async fn node(word: &'static str) -> Origin {
    Origin::start(move |seen| Reply::result(seen, &format!("\"{word}\""))).await
}

fn watched(url: &str) -> String {
    format!("reload_on_change = true\n{QUICK}{}", nodes([url]))
}

/// Waits until calls are answered by the node that says `word`.
async fn served_by(clients: &str, word: &str) {
    until("the node of the file serves", async || {
        let mut client = Client::connect(clients.parse().unwrap()).await;
        client.post(&call(1, "eth_call", "[]")).await.text().contains(word)
    })
    .await;
}

/// Puts `text` into the place of `file` at once, as careful programs do.
fn replace(file: &Path, text: &str) {
    let fresh = file.with_extension("fresh");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, file).unwrap();
}

#[tokio::test]
async fn a_file_that_is_replaced_is_read_anew_by_itself() {
    let (one, two) = (node("one").await, node("two").await);
    let (process, clients, _) = running(watched(one.url())).await;
    served_by(&clients, "one").await;
    replace(process.file(), &watched(two.url()));
    let (process, _) = says(process, "the file of the settings has changed").await;
    let (process, line) = says(process, "configuration reloaded").await;
    assert!(line.contains("default/el/el-1 changes (http)"), "{line}");
    served_by(&clients, "two").await;

    // A refused file is refused once, though it stays.
    replace(process.file(), &format!("hopla = 1\n{}", watched(one.url())));
    let (process, line) = says(process, "configuration not reloaded").await;
    assert!(line.contains("hopla"), "{line}");
    sleep(Duration::from_secs(4)).await;
    assert_eq!(process.log().matches("configuration not reloaded").count(), 1);
    served_by(&clients, "two").await;
    replace(process.file(), &format!("{QUICK}{}", nodes([one.url()])));
    let (process, _) = says(process, "configuration reloaded").await;
    served_by(&clients, "one").await;

    // From now on only when told.
    replace(process.file(), &watched(two.url()));
    sleep(Duration::from_secs(4)).await;
    assert_eq!(process.log().matches("configuration reloaded").count(), 2);
    process.signal("HUP");
    let (_process, _) = says(process, "configuration reloaded").await;
    served_by(&clients, "two").await;
}

#[tokio::test]
async fn the_swap_of_a_folder_behind_the_file_is_seen() {
    let (one, two) = (node("one").await, node("two").await);
    // As a ConfigMap is mounted: the file is a link into a link to a folder, and the latter is swapped.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("swapped-{}", std::process::id()));
    for (name, url) in [("first", one.url()), ("second", two.url())] {
        fs::create_dir_all(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("steadfast.toml"), watched(url)).unwrap();
    }
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
    link("first", "..data");
    link("..data/steadfast.toml", "steadfast.toml");
    let file = folder.join("steadfast.toml");
    let started = spawn_blocking(move || {
        let mut process = Binary::run_file(&file);
        process.until_it_says("steadfast is running", SOON);
        process
    });
    let process = timeout(common::SOON * 2, started).await.expect("it starts").unwrap();
    let clients = process.address("clients").unwrap().to_string();
    served_by(&clients, "one").await;
    link("second", "..data_tmp");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    let (process, _) = says(process, "configuration reloaded").await;
    served_by(&clients, "two").await;
    drop(process);
    fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_read_at_once_stops_nothing() {
    let (one, two) = (node("one").await, node("two").await);
    let (process, clients, admin) = running(watched(one.url())).await;
    served_by(&clients, "one").await;
    let reload = async || command(&["reload", "--admin", &admin]).await;
    // A pipe without a writer.
    fs::remove_file(process.file()).unwrap();
    assert!(Command::new("mkfifo").arg(process.file()).status().unwrap().success());
    let (process, line) = says(process, "configuration not reloaded").await;
    assert!(line.contains("is no regular file"), "{line}");
    let (_, _, why) = command(&["check", "--diff", "--admin", &admin]).await;
    assert!(why.contains("is no regular file"), "{why}");
    served_by(&clients, "one").await;
    // A file without an end, and a long one.
    fs::remove_file(process.file()).unwrap();
    std::os::unix::fs::symlink("/dev/zero", process.file()).unwrap();
    let (code, _, why) = reload().await;
    assert!(code != 0 && why.contains("is no regular file"), "{code} {why}");
    replace(process.file(), &" ".repeat((1 << 20) + 1));
    let (code, _, why) = reload().await;
    assert!(code != 0 && why.contains("is longer than 1048576 bytes"), "{code} {why}");
    // The same of the certificates that a file names.
    let authority = format!("{}ca_file = \"/dev/zero\"\n", watched("https://127.0.0.1:1"));
    replace(process.file(), &authority);
    let (code, _, why) = reload().await;
    assert!(code != 0 && why.contains("ca_file") && why.contains("is no regular file"), "{code} {why}");
    replace(process.file(), &watched(two.url()));
    served_by(&clients, "two").await;
}

#[tokio::test]
async fn settings_that_hang_are_refused_and_calls_go_on() {
    let node = node("one").await;
    let settings = config(&nodes([node.url()]));
    let (release, hangs) = mpsc::channel::<()>();
    let (hangs, again) = (Mutex::new(hangs), settings.clone());
    let source = move || {
        // As a file system whose server is away; not for ever, so that the test ends in any case.
        let _ = hangs.lock().unwrap().recv_timeout(Duration::from_secs(60));
        Ok(again.clone())
    };
    let app = App::start(settings, World::real(1), Some(std::sync::Arc::new(source))).await.unwrap();
    let clients = app.addr().to_string();
    let (refused, ()) = tokio::join!(app.reload(), async {
        sleep(Duration::from_millis(100)).await;
        served_by(&clients, "one").await;
    });
    assert!(refused.unwrap_err().contains("cannot be read in time"));
    release.send(()).unwrap();
    release.send(()).unwrap();
    assert_eq!(app.reload().await.unwrap(), "nothing had changed");
}
