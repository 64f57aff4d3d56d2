//! The conformance kit of the language: every scenario that needs no task this version leaves out, against a scripted
//! outside world. `FLEET_CTK` names the folder of the feature files; without it the test says so and passes.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleet_workflow::machine::effect::{Authentication, Effect, HttpOutput, HttpRequest};
use fleet_workflow::machine::event::{ErrorObject, Outcome};
use fleet_workflow::machine::{CompiledWorkflow, TaskReport};
use serde_json::{Value, json};

use crate::driver::{Run, run};

/// One step: its words, and the text block under it.
struct Step {
    words: String,
    block: Option<String>,
}

struct Scenario {
    name: String,
    steps: Vec<Step>,
}

fn read(feature: &str) -> Vec<Scenario> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    let mut lines = feature.lines();
    while let Some(line) = lines.next() {
        let text = line.trim();
        if let Some(name) = text.strip_prefix("Scenario:") {
            scenarios.push(Scenario { name: name.trim().to_owned(), steps: Vec::new() });
        } else if let Some(scenario) = scenarios.last_mut() {
            if text.starts_with("\"\"\"") {
                let indent = line.len() - line.trim_start().len();
                let body = lines.by_ref().take_while(|line| !line.trim().starts_with("\"\"\""));
                let body: Vec<&str> = body.map(|line| line.get(indent..).unwrap_or("")).collect();
                if let Some(step) = scenario.steps.last_mut() {
                    step.block = Some(body.join("\n"));
                }
            } else if let Some((_, words)) = text.split_once(' ').filter(|(word, _)| is_keyword(word)) {
                let words = words.strip_prefix("given ").unwrap_or(words);
                scenario.steps.push(Step { words: words.to_owned(), block: None });
            }
        }
    }
    scenarios
}

fn is_keyword(word: &str) -> bool {
    ["Given", "When", "Then", "And", "But"].contains(&word)
}

/// A YAML value, read by way of a workflow that holds it.
fn yaml(block: &str) -> Value {
    let indented: String = block.lines().map(|line| format!("      {line}\n")).collect();
    let holder = format!(
        "document:\n  dsl: '1.0.3'\n  namespace: a\n  name: a\n  version: '1.0.0'\n  metadata:\n    value:\n{indented}do:\n  - a:\n      set: {{x: 1}}\n"
    );
    let parsed = fleet_workflow::parse(holder.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}\n{holder}"));
    parsed.workflow.document.metadata["value"].clone()
}

/// The pet store and the other services that the kit expects.
fn services(effect: &Effect, _path: &str) -> Outcome {
    let Effect::Http(request) = effect else { panic!("the kit runs no process") };
    let pet = |id: u64| json!({"id": id, "name": format!("pet {id}"), "status": "available"});
    let uri = request.uri.as_str();
    let content =
        if let Some(id) = uri.strip_prefix("https://petstore.swagger.io/v2/pet/").and_then(|id| id.parse().ok()) {
            pet(id)
        } else if uri.starts_with("https://petstore.swagger.io/v2/pet/findByStatus?status=available") {
            json!([pet(1), pet(2)])
        } else if uri == "https://httpbin.org/basic-auth/serverless-workflow/conformance-test" {
            let expected =
                Authentication::Basic { username: "serverless-workflow".into(), password: "conformance-test".into() };
            match &request.authentication {
                Some(given) if *given == expected => json!({"authenticated": true}),
                _ => return Outcome::Err(ErrorObject::standard("authentication", 401, "Unauthorized", "")),
            }
        } else {
            return Outcome::Err(ErrorObject::standard("communication", 404, "Not Found", format!("nothing at {uri}")));
        };
    Outcome::Ok(shape(request, content))
}

fn shape(request: &HttpRequest, content: Value) -> Value {
    match request.output {
        HttpOutput::Content => content,
        HttpOutput::Raw => json!(STANDARD.encode(content.to_string())),
        HttpOutput::Response => json!({
            "request": {"method": request.method, "uri": request.uri, "headers": {}},
            "headers": {"content-type": "application/json"},
            "statusCode": 200,
            "content": content,
        }),
    }
}

/// Where a dotted property leads.
fn property<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| value.get(key))
}

fn number(tasks: &[TaskReport], name: &str) -> Result<u64, String> {
    let task = tasks.iter().find(|task| task.name == name).ok_or_else(|| format!("there is no task {name}"))?;
    task.number.ok_or_else(|| format!("the task {name} did not run"))
}

/// Whether the run is as a step says.
fn holds(step: &Step, done: &Run) -> Result<(), String> {
    let result = done.result();
    let words = step.words.as_str();
    let block = || yaml(step.block.as_deref().unwrap_or("null"));
    let check = |holds: bool| if holds { Ok(()) } else { Err(format!("{words}: {result:?}")) };
    let quoted: Vec<&str> = words.split('\'').skip(1).step_by(2).collect();
    let output = result.as_ref().unwrap_or(&Value::Null);
    let tasks = done.machine.tasks();
    if let Some((name, "first" | "last")) = words.split_once(" should run ").map(|(name, place)| (name, place.trim())) {
        let own = number(&tasks, name)?;
        let numbers = tasks.iter().filter_map(|task| task.number);
        let edge = if words.trim().ends_with("first") { numbers.min() } else { numbers.max() };
        return check(edge == Some(own));
    }
    if let Some((name, other)) = words.split_once(" should run after ") {
        return check(number(&tasks, name)? > number(&tasks, other.trim())?);
    }
    if let Some((name, other)) = words.split_once(" should run before ") {
        return check(number(&tasks, name)? < number(&tasks, other.trim())?);
    }
    match words.trim() {
        "the workflow should complete" => check(result.is_ok()),
        "the workflow should fault" => check(result.is_err()),
        "the workflow should complete with output:" => check(result.as_ref().ok() == Some(&block())),
        "the workflow should fault with error:" => {
            let error = result.as_ref().err().map(|error| serde_json::to_value(error).expect("an error is JSON"));
            check(error == Some(block()))
        }
        other if other.contains("should have properties") => {
            check(quoted.iter().all(|path| property(output, path).is_some()))
        }
        other if other.contains("property with value:") => check(property(output, quoted[0]) == Some(&block())),
        other if other.contains("property containing") => {
            let count = other.rsplit(' ').nth(1).and_then(|count| count.parse::<usize>().ok());
            check(property(output, quoted[0]).and_then(Value::as_array).map(Vec::len) == count)
        }
        other => Err(format!("unknown step: {other}")),
    }
}

/// `Ok(false)`: it needs a task that this version leaves out.
fn play(scenario: &Scenario) -> Result<bool, String> {
    let block = |words: &str| {
        scenario.steps.iter().find(|step| step.words.starts_with(words)).and_then(|step| step.block.clone())
    };
    let definition = block("a workflow with definition").ok_or("no definition")?;
    let input = block("the workflow input is").map_or_else(|| json!({}), |text| yaml(&text));
    let parsed = fleet_workflow::parse(definition.as_bytes()).map_err(|problems| format!("{problems:?}"))?;
    if !fleet_workflow::unsupported(&parsed.workflow).is_empty() {
        return Ok(false);
    }
    let compiled = CompiledWorkflow::compile(Arc::new(parsed.workflow)).map_err(|errors| format!("{errors:?}"))?;
    let done = run(&Arc::new(compiled), &input, services);
    let executed = scenario.steps.iter().position(|step| step.words.starts_with("the workflow is executed"));
    let checks = &scenario.steps[executed.ok_or("never executed")? + 1..];
    checks.iter().try_for_each(|step| holds(step, &done)).map(|()| true)
}

#[test]
fn the_scenarios_of_the_conformance_kit() {
    let Ok(folder) = std::env::var("FLEET_CTK") else {
        println!("skipped: FLEET_CTK is not set; it names the folder of the kit's feature files");
        return;
    };
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut passed, mut left_out, mut failed) = (0, Vec::new(), Vec::new());
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "feature")) {
        for scenario in read(&std::fs::read_to_string(file).unwrap()) {
            let name = format!("{}: {}", file.file_stem().unwrap().to_string_lossy(), scenario.name);
            match play(&scenario) {
                Ok(true) => {
                    println!("passed   {name}");
                    passed += 1;
                }
                Ok(false) => {
                    println!("left out {name}");
                    left_out.push(name);
                }
                Err(why) => {
                    println!("FAILED   {name}: {why}");
                    failed.push(name);
                }
            }
        }
    }
    println!("{passed} passed, {} left out, {} failed", left_out.len(), failed.len());
    assert!(failed.is_empty(), "{failed:?}");
    assert!(passed > 0, "no scenario in {folder}");
}
