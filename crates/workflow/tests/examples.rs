//! The example workflows of the documentation: all valid, all within what this version can run, and they do what they say.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use fleet_workflow::machine::command::Command;
use fleet_workflow::machine::effect::{Effect, ProcessRequest};
use fleet_workflow::machine::event::{Event, Outcome};
use fleet_workflow::machine::{CompiledWorkflow, JobContext, Machine};
use serde_json::{Value, json};

#[test]
fn every_example_is_valid_and_can_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml" && extension != "json") {
            continue;
        }
        let parsed = fleet_workflow::parse(&fs::read(&path).unwrap())
            .unwrap_or_else(|problems| panic!("{}: {problems:#?}", path.display()));
        assert_eq!(parsed.warnings, [], "{}", path.display());
        let again = fleet_workflow::parse(parsed.workflow.source.to_string().as_bytes()).unwrap();
        assert_eq!(again.workflow, parsed.workflow, "{} is another workflow as JSON", path.display());
        names.push(parsed.workflow.qualified_name());
    }
    names.sort();
    assert!(names.len() >= 10, "{names:?}");
    let mut unique = names.clone();
    unique.dedup();
    assert_eq!(unique, names, "two examples have the same name");
    assert!(names.contains(&"examples/hello:1.0.0".to_owned()), "{names:?}");
}

#[test]
fn the_capabilities_of_a_workflow_are_those_of_its_tasks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    for (name, expected) in [
        ("hello.yaml", &[] as &[&str]),
        ("http-retry.yaml", &["http"]),
        ("shell.yaml", &["shell"]),
        ("python-script.yaml", &["script:python"]),
    ] {
        let parsed = fleet_workflow::parse(&fs::read(folder.join(name)).unwrap()).unwrap();
        assert_eq!(fleet_workflow::needs(&parsed.workflow), expected, "{name}");
    }
}

/// Runs an example: effects are answered by `answer`, and if there is none in flight the next timer fires.
fn run(name: &str, input: &Value, answer: fn(&Effect) -> Value) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples").join(name);
    let parsed = fleet_workflow::parse(&fs::read(path).expect("readable")).expect("valid");
    let compiled = CompiledWorkflow::compile(Arc::new(parsed.workflow)).expect("compiles");
    let context = JobContext { job_id: "job".to_owned(), runtime_version: "0".to_owned() };
    let mut machine = Machine::start(Arc::new(compiled), context, input);
    let mut at_ms = 1_700_000_000_000;
    machine.apply(&Event::Started { at_ms });
    for _ in 0..100 {
        if let Some(ended) = machine.ended() {
            let Command::Complete { output } = ended else { panic!("{name}: {ended:?}") };
            return output.clone();
        }
        let mut outstanding = machine.outstanding();
        outstanding.sort_by_key(|command| matches!(command, Command::SetTimer { .. }));
        let event = match outstanding.into_iter().next() {
            Some(Command::Start { path, effect, .. }) => Event::EffectEnded {
                path,
                started_ms: at_ms,
                at_ms,
                outcome: Outcome::Ok(answer(&effect)),
                stdout_tail: String::new(),
                stderr_tail: String::new(),
            },
            Some(Command::SetTimer { path, due_ms }) => {
                at_ms = at_ms.max(due_ms);
                Event::TimerFired { path, at_ms }
            }
            other => panic!("{name}: {other:?}"),
        };
        machine.apply(&event);
    }
    panic!("{name} does not end");
}

#[test]
fn examples_without_effects_give_what_they_say() {
    let no_effect: fn(&Effect) -> Value = |effect| panic!("an effect: {effect:?}");
    for (name, input, expected) in [
        ("hello.yaml", json!({"name": "Ada"}), json!({"greeting": "Hello, Ada!"})),
        ("hello.yaml", json!({}), json!({"greeting": "Hello, world!"})),
        ("hello.json", json!({"name": "Ada"}), json!({"greeting": "Hello, Ada!"})),
        (
            "fork.yaml",
            json!({"temperature": 71, "pressure": 4.2}),
            json!({"checks": [{"check": "temperature", "good": true}, {"check": "pressure", "good": true}], "good": true}),
        ),
        ("for-loop.yaml", json!({"prices": [12.5, 3, 4.5]}), json!({"sum": 20, "counted": 3})),
        ("switch.yaml", json!({"size": 5}), json!({"way": "letter", "days": 2})),
        ("switch.yaml", json!({"size": 50}), json!({"way": "parcel", "days": 3})),
        ("switch.yaml", json!({"size": 120}), json!({"way": "truck", "days": 5})),
        ("try-catch.yaml", json!({"amount": 7}), json!({"booked": 7})),
        (
            "try-catch.yaml",
            json!({"amount": -5}),
            json!({"booked": 0, "because": "The amount is negative", "at": "/do/0/book/try/0/refuseNegative"}),
        ),
        ("wait.yaml", json!({"pause": "PT30S"}), json!({"rested": true})),
        ("wait.yaml", json!({}), json!({"rested": true})),
    ] {
        assert_eq!(run(name, &input, no_effect), expected, "{name} {input}");
    }
}

#[test]
fn examples_with_effects_ask_for_them_and_use_the_results() {
    let shell = |effect: &Effect| {
        let Effect::Process(ProcessRequest { stdin, arguments, .. }) = effect else { panic!("{effect:?}") };
        assert_eq!((stdin.as_deref(), arguments.as_slice()), (Some("one two three"), &["words".to_owned()][..]));
        json!({"code": 0, "stdout": "words\n3\n", "stderr": ""})
    };
    let output = run("shell.yaml", &json!({"words": ["one", "two", "three"]}), shell);
    assert_eq!(output, json!({"exitCode": 0, "said": "words 3 "}));
    let python = |effect: &Effect| {
        let Effect::Process(ProcessRequest { stdin, .. }) = effect else { panic!("{effect:?}") };
        assert_eq!(stdin.as_deref(), Some("[3,1]"));
        json!("{\"mean\": 2, \"highest\": 3}\n")
    };
    assert_eq!(run("python-script.yaml", &json!({"readings": [3, 1]}), python), json!({"mean": 2, "highest": 3}));
    let http = |effect: &Effect| {
        let Effect::Http(request) = effect else { panic!("{effect:?}") };
        assert_eq!((request.method.as_str(), request.uri.as_str()), ("GET", "http://127.0.0.1:9000/orders/7"));
        json!({"order": 7, "state": "shipped"})
    };
    let input = json!({"service": "http://127.0.0.1:9000", "order": 7});
    assert_eq!(run("http-retry.yaml", &input, http), json!({"order": 7, "state": "shipped"}));
}
