//! The daemon's command line as a user meets it: the built binary, its help, its refusals and exit codes.

use std::process::{Command, Output};

fn fleetd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleetd"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("the binary that this build made can be run")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_names_every_verb() {
    let output = fleetd(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for verb in ["start", "join", "demo", "dev"] {
        assert!(text.contains(verb), "{verb} is missing in:\n{text}");
    }
}

#[test]
fn a_wrong_flag_is_a_usage_error() {
    assert_eq!(fleetd(&["start", "--nonsense"]).status.code(), Some(2));
    assert_eq!(fleetd(&["join"]).status.code(), Some(2), "join needs a seed");
}

#[test]
fn wrong_settings_are_all_named_and_nothing_is_made() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let data_dir = root.path().join("data");
    let data_dir = data_dir.to_str().expect("a plain path");
    let output = fleetd(&["start", "--dev", "--listen", "0.0.0.0:1", "--site", "No Site", "--data-dir", data_dir]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("loopback only") && stderr(&output).contains("--site or FLEET_SITE:"),
        "{}",
        stderr(&output)
    );
    assert!(!root.path().join("data").exists(), "a refused start must leave no trace");
}

/// A founder asks nobody, so it has to refuse by itself what every node would refuse of a joiner.
#[test]
fn what_no_node_would_let_join_is_not_founded_either() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let data_dir = root.path().join("data");
    let file = root.path().join("fleetd.yaml");
    std::fs::write(&file, "node: {site: \"a\\tb\"}\nrobot: {slotz: 3}\n").expect("the file can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetd"));
    command
        .args(["start", "--dev", "--tag", "gpu", "--tag", "line\nbreak", "--listen", "127.0.0.1:0"])
        .arg("--data-dir");
    command.arg(&data_dir).arg("--config").arg(&file).env_clear().env("FLEET_NAME", "bell\u{7}");
    let output = command.output().expect("the binary that this build made can be run");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let named = [
        r"--tag or FLEET_TAG: `line\nbreak`",
        r"--name or FLEET_NAME: `bell\u{7}`",
        "node.site: `a\\tb`",
        "robot.slotz",
    ];
    for part in named {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(!data_dir.exists(), "a refused start must leave no trace");
}

#[test]
fn an_unreachable_seed_is_exit_4() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let data_dir = root.path().join("data");
    let data_dir = data_dir.to_str().expect("a plain path");
    let arguments = ["join", "--dev", "--seed", "127.0.0.1:1", "--data-dir", data_dir, "--listen", "127.0.0.1:0"];
    let output = fleetd(&arguments);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
}
