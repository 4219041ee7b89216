//! Holds the one command of all checks, `.ci/run`, to the tree: each check runs there, and no test
//! is passed over.

use std::{fs, path::Path};

use super::read_texts;

/// Scripts of `tests/real` that other scripts call, or that are no checks.
const CALLED: [&str; 6] = ["beacon", "clients", "filters", "lib", "watch", "ws"];

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file to read")
}

/// U5: people and CI use the same command.
#[test]
fn each_script_of_real_nodes_is_a_check() {
    let ci = text(".ci/run");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
    let names = fs::read_dir(folder).expect("a folder to read").flatten().map(|entry| entry.file_name());
    let scripts = names.filter_map(|name| Some(name.to_str()?.strip_suffix(".sh")?.to_owned()));
    let scripts: Vec<String> = scripts.filter(|name| !CALLED.contains(&&**name)).collect();
    assert!(scripts.len() > 5, "this test no longer finds the scripts that are there");
    for name in scripts {
        assert!(ci.contains(&format!("step tests/real/{name}.sh\n")), ".ci/run does not run tests/real/{name}.sh");
    }
    for step in [
        "cargo test",
        "cargo fmt --all --check",
        "cargo clippy --all-targets -- -D warnings",
        "tests/image/check.sh",
        "deploy/check.sh",
    ] {
        assert!(ci.contains(&format!("step {step}")), ".ci/run does not run {step}");
    }
}

/// U6: the NATS server of the tests is brought, and a machine without it fails.
#[test]
fn the_servers_of_tests_are_installed() {
    let ci = text(".ci/run");
    assert!(ci.contains("step tests/install.sh\n"));
    for tests in ["--lib cluster::store", "--test process cluster"] {
        assert!(ci.contains(&format!("step cargo test --features real-nats {tests}\n")), "{tests}");
    }
    assert!(text("tests/real/requirements.txt").contains("\nnats-server-bin=="));
    assert!(text("tests/install.sh").contains("\nvenv/bin/nats-server --version || fail"));
}

/// U6: a test that is skipped is a failure.
#[test]
fn no_test_is_ignored() {
    let mut tests = 0;
    let mark = ["#[ig", "nore"].concat();
    for folder in ["src", "tests"] {
        read_texts(Path::new(env!("CARGO_MANIFEST_DIR")), folder, &mut |path, text| {
            tests += text.matches("#[test]").count();
            assert!(!text.contains(&mark), "{path} has a test that is ignored");
        });
    }
    assert!(tests > 500, "this test no longer finds the tests that are there");
    assert!(text(".ci/run").contains("ignored += count(\"ignored\") + count(\"skipped\")"));
}
