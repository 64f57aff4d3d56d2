//! The operator's command as a user meets it: the built binary, its help, its output and its exit codes. No fleet here.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The binary with an empty environment but for `PATH`.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetctl"));
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
    command
}

fn fleetctl(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the binary that this build made can be run")
}

fn with_input(arguments: &[&str], input: &str) -> Output {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be run");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads its input");
    child.wait_with_output().expect("it ends")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

fn parsed(output: &Output) -> Value {
    assert_eq!(code(output), 0, "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("JSON on standard output")
}

fn example(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples").join(name);
    path.to_str().expect("a plain path").to_owned()
}

/// A workflow of one task, in a file of its own.
fn workflow(directory: &Path, task: &str) -> String {
    let text = format!(
        "document: {{dsl: '1.0.3', namespace: test, name: test, version: '1.0.0'}}\ndo:\n  - it:\n{}",
        task.lines().map(|line| format!("      {line}\n")).collect::<String>()
    );
    let path = directory.join("workflow.yaml");
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("a plain path").to_owned()
}

#[test]
fn help_names_every_noun_and_verb() {
    let output = fleetctl(&["--help"]);
    assert_eq!(code(&output), 0);
    let text = stdout(&output);
    for word in [
        "submit",
        "run",
        "validate",
        "job",
        "node",
        "site",
        "token",
        "status",
        "top",
        "outbox",
        "workflow",
        "doctor",
        "version",
        "completion",
    ] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(word)), "{word} is missing in:\n{text}");
    }
    for (noun, verbs) in [
        ("job", "list get watch logs journal cancel recall retry pause resume"),
        ("node", "list get drain resume remove"),
        ("site", "list get remove recover"),
        ("outbox", "list abandon"),
        ("workflow", "deploy list get delete export import"),
        ("token", "create list revoke"),
    ] {
        let text = stdout(&fleetctl(&[noun, "--help"]));
        let listed: Vec<_> = text
            .lines()
            .skip_while(|line| *line != "Commands:")
            .skip(1)
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_whitespace().next())
            .filter(|word| *word != "help")
            .collect();
        assert_eq!(listed.join(" "), verbs, "{noun}");
    }
}

#[test]
fn the_flags_of_submit_are_the_contract() {
    let text = stdout(&fleetctl(&["submit", "--help"]));
    let mut flags: Vec<_> = text
        .split_whitespace()
        .filter(|word| word.starts_with("--"))
        .map(|word| word.trim_end_matches([',', '.']))
        .collect();
    flags.sort_unstable();
    flags.dedup();
    let expected = "--credential --endpoint --help --idempotency-key --input --output --priority --site --tag --timeout --verbose --version --wait --watch";
    assert_eq!(flags.join(" "), expected);
}

#[test]
fn exit_codes_follow_the_kind_of_the_error() {
    let hello = example("hello.yaml");
    let nobody = "127.0.0.1:1";
    for (arguments, expected) in [
        (vec!["version"], 0),
        (vec!["completion", "bash"], 0),
        (vec!["nonsense"], 2),
        (vec!["job", "list", "--limit", "0"], 2),
        (vec!["submit", &hello, "--timeout", "1s", "--endpoint", nobody], 2),
        (vec!["submit", &hello, "--priority", "21"], 2),
        (vec!["submit", &hello, "--input", "{a", "--endpoint", nobody], 2),
        (vec!["submit", "-", "--input", "-", "--endpoint", nobody], 2),
        (vec!["submit", "/nowhere/x.yaml", "--endpoint", nobody], 3),
        (vec!["validate", "/nowhere/x.yaml"], 3),
        (vec!["site", "recover", "--endpoint", nobody], 4),
        (vec!["job", "get", "0190", "--endpoint", nobody], 4),
        (vec!["status", "--endpoint", "192.0.2.1:7000"], 5),
    ] {
        let output = fleetctl(&arguments);
        assert_eq!(code(&output), expected, "{arguments:?}: {}", stderr(&output));
        assert_eq!(expected == 0, output.stderr.is_empty(), "{arguments:?}: {}", stderr(&output));
        assert!(expected == 0 || output.stdout.is_empty(), "data only where there is some: {arguments:?}");
    }
}

#[test]
fn endpoints_come_from_the_environment_too() {
    let output = command(&["status"]).env("FLEET_ENDPOINT", "127.0.0.1:1,127.0.0.1:2").output().expect("it runs");
    assert_eq!(code(&output), 4);
    assert!(stderr(&output).lines().any(|line| line.starts_with("next:  ")), "{}", stderr(&output));
    let output = command(&["status"]).env("FLEET_CREDENTIAL", "/nowhere/credential.json").output().expect("it runs");
    assert_eq!(code(&output), 3, "{}", stderr(&output));
}

#[test]
fn every_example_is_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    let files: Vec<String> = std::fs::read_dir(directory)
        .expect("the examples")
        .flatten()
        .filter_map(|entry| entry.path().to_str().map(str::to_owned))
        .collect();
    assert!(files.len() >= 10);
    let arguments: Vec<&str> = std::iter::once("validate").chain(files.iter().map(String::as_str)).collect();
    let output = fleetctl(&arguments);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), files.len());
}

#[test]
fn problems_have_their_place() {
    let text = "document:\n  dsl: '1.0.3'\n  namespace: test\n  name: Bad Name\n  version: '1.0.0'\ndo:\n  - a:\n      set: {x: 1}\n      nonsense: true\n";
    let output = with_input(&["validate", "-"], text);
    assert_eq!(code(&output), 2);
    let said = stderr(&output);
    assert!(said.lines().any(|line| line.starts_with("<stdin>:4:9: /document/name: ")), "{said}");
    assert!(said.lines().any(|line| line.starts_with("<stdin>:9:") && line.contains(": /do/0/a")), "{said}");

    let output = with_input(&["validate", "-", "-o", "json"], text);
    assert_eq!(code(&output), 2);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["valid"], &report["files"][0]["problems"][0]["line"]), (&json!(false), &json!(4)));
}

#[test]
fn what_this_version_cannot_run_is_a_warning_and_not_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = workflow(directory.path(), "emit:\n  event:\n    with: {source: 'https://a.example', type: a.b}");
    let output = fleetctl(&["validate", &file]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: "), "{}", stderr(&output));
    assert_eq!(code(&fleetctl(&["run", &file])), 2);
}

#[test]
fn examples_run_to_their_outputs() {
    for (name, input, expected) in [
        ("for-loop.yaml", r#"{"prices": [12.5, 3, 4.5]}"#, None),
        ("fork.yaml", r#"{"temperature": 71, "pressure": 4.2}"#, Some(json!({"good": true}))),
        ("switch.yaml", r#"{"size": 120}"#, None),
        ("try-catch.yaml", r#"{"amount": -5}"#, None),
        ("shell.yaml", r#"{"words": ["one", "two", "three"]}"#, Some(json!({"exitCode": 0, "said": "words 3 "}))),
        ("python-script.yaml", r#"{"readings": [3, 1, 4, 1, 5, 9, 2, 6]}"#, None),
        ("hello.yaml", r#"{"name": "Ada"}"#, None),
        ("hello.json", "{}", None),
    ] {
        let output = parsed(&fleetctl(&["run", &example(name), "--input", input, "-o", "json"]));
        for (key, value) in expected.iter().flat_map(|expected| expected.as_object().expect("an object")) {
            assert_eq!(&output[key], value, "{name}: {output}");
        }
    }
}

#[test]
fn a_wait_takes_its_time_and_inputs_come_from_anywhere() {
    let directory = tempfile::tempdir().expect("a directory");
    let input = directory.path().join("input.json");
    std::fs::write(&input, r#"{"pause": "PT0.3S"}"#).expect("a file");
    let from_file = format!("@{}", input.display());
    let file = workflow(directory.path(), "wait: ${ .pause }");
    let start = Instant::now();
    assert_eq!(parsed(&fleetctl(&["run", &file, "--input", &from_file])), json!({"pause": "PT0.3S"}));
    assert!(start.elapsed() >= Duration::from_millis(300));
    let output = with_input(&["run", &file, "--input", "-", "-o", "yaml"], r#"{"pause": "PT0S", "rest": null}"#);
    assert!(stdout(&output).contains("rest: null"), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn a_failed_run_says_where_and_shows_its_tasks() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = workflow(directory.path(), "run:\n  shell:\n    command: echo out; echo oh >&2; exit 7");
    let output = fleetctl(&["run", "-v", &file]);
    assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
    let said = stderr(&output);
    for part in [
        "running    /do/0/it",
        "| out",
        "faulted    /do/0/it",
        "error: the workflow failed at /do/0/it",
        "exit code 7: oh",
    ] {
        assert!(said.contains(part), "{part:?} is missing in:\n{said}");
    }
}

#[test]
fn a_timeout_ends_what_it_bounds() {
    let directory = tempfile::tempdir().expect("a directory");
    let file =
        workflow(directory.path(), "run:\n  shell:\n    command: sleep 1000\ntimeout:\n  after: {milliseconds: 300}");
    let start = Instant::now();
    let output = fleetctl(&["run", &file]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("timeout 408"), "{}", stderr(&output));
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_run_and_its_processes() {
    let directory = tempfile::tempdir().expect("a directory");
    let mark = directory.path().join("pid");
    let task = format!("run:\n  shell:\n    command: echo $$ > {}; sleep 1000", mark.display());
    let file = workflow(directory.path(), &task);
    let mut child = command(&["run", &file]).stderr(Stdio::null()).spawn().expect("it runs");
    let start = Instant::now();
    let shell = loop {
        match std::fs::read_to_string(&mark) {
            Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
            _ => assert!(start.elapsed() < Duration::from_secs(20), "the shell starts"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    assert!(!Path::new("/proc").join(&shell).exists(), "nothing is left when the command returns");
}

#[test]
fn completion_scripts_know_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&fleetctl(&["completion", shell])).contains("submit"), "{shell}");
    }
    assert_eq!(code(&fleetctl(&["completion", "cobol"])), 2);
}
