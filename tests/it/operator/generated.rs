//! Files that the commands write for editors, shells and readers of manuals.

use super::process::command;

/// The commands that the help names.
async fn commands() -> Vec<String> {
    let (code, help, _) = command(&["--help"]).await;
    assert_eq!(code, 0);
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let lines = list.lines().take_while(|line| !line.is_empty());
    // The text of a command goes on in deeper lines.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<String> = names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    assert!(names.len() >= 15, "{names:?}");
    names.into_iter().filter(|name| name != "help").collect()
}

#[tokio::test]
async fn the_schema_is_printed_as_json() {
    let (code, text, _) = command(&["config", "schema"]).await;
    assert_eq!(code, 0);
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(schema["properties"]["ws"]["properties"]["max_message"]["type"], "string");
    assert_eq!(schema["additionalProperties"], false);
}

#[tokio::test]
async fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script, _) = command(&["completions", shell]).await;
        assert_eq!(code, 0);
        for name in commands().await {
            let mut words = script.split(|c: char| !c.is_ascii_alphanumeric());
            assert!(words.any(|word| word == name), "{shell} completes no {name}");
        }
    }
    let (code, _, why) = command(&["completions", "tcsh"]).await;
    assert!(code == 2 && why.contains("bash"), "{why}");
}

#[tokio::test]
async fn a_manual_page_is_written_for_every_command() {
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("man-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (code, _, why) = command(&["man", folder.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{why}");
    let page = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_else(|why| panic!("{name}: {why}"));
    for name in commands().await {
        let page = page(&format!("steadfast-{name}.1"));
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH DESCRIPTION"), "{name}: {page}");
    }
    assert!(page("steadfast-check.1").contains("another chain"));
    assert!(page("steadfast-config-schema.1").contains("JSON Schema"));
    // The page of all names each.
    let first = page("steadfast.1");
    for name in commands().await {
        assert!(first.contains(&format!("steadfast\\-{name}(1)")), "{name}: {first}");
    }
    assert!(page("steadfast-outbox-cancel.1").contains("cannot unsend"));
    std::fs::remove_dir_all(&folder).unwrap();
    let (code, _, why) = command(&["man", folder.to_str().unwrap()]).await;
    assert!(code == 1 && why.contains(folder.to_str().unwrap()), "{why}");
}
