//! Files that the commands write for editors, shells and readers of manuals.

use super::process::command;

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
        for name in ["run", "dev", "check", "status", "cordon", "reload", "outbox", "init"] {
            assert!(script.contains(name), "{shell} completes no {name}");
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
    let page = std::fs::read_to_string(folder.join("steadfast-check.1")).unwrap();
    assert!(page.contains("another chain"), "{page}");
    assert!(folder.join("steadfast.1").exists());
    let page = std::fs::read_to_string(folder.join("steadfast-outbox-cancel.1")).unwrap();
    assert!(page.contains("cannot unsend"), "{page}");
    std::fs::remove_dir_all(&folder).unwrap();
    let (code, _, why) = command(&["man", folder.to_str().unwrap()]).await;
    assert!(code == 1 && why.contains(folder.to_str().unwrap()), "{why}");
}
