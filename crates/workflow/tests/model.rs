//! What the author wrote is what the model holds.

use fleet_workflow::dsl::call::Call;
use fleet_workflow::dsl::call::http::TextMap;
use fleet_workflow::dsl::document::OnDisconnect;
use fleet_workflow::dsl::duration::{Duration, Length};
use fleet_workflow::dsl::retry::Backoff;
use fleet_workflow::dsl::task::{TaskKind, Then, Timeout};
use fleet_workflow::machine::command::OnLost;
use fleet_workflow::machine::effect::{HttpOutput, ProcessReturn};
use fleet_workflow::{Workflow, parse};
use serde_json::json;

fn document(name: &str) -> Workflow {
    let path = format!("{}/tests/documents/{name}", env!("CARGO_MANIFEST_DIR"));
    parse(&std::fs::read(path).expect("readable")).expect("valid").workflow
}

fn milliseconds(milliseconds: u64) -> Duration {
    Duration::Fixed(Length { months: 0, milliseconds })
}

#[test]
fn the_head_and_the_settings_of_fleet() {
    let workflow = document("tasks.yaml");
    assert_eq!(workflow.qualified_name(), "fixtures/tasks:1.2.3-rc.1+build.7");
    let fleet = &workflow.document.fleet;
    assert_eq!(fleet.tags, ["windows", "gpu"]);
    assert_eq!(fleet.site.as_deref(), Some("plant-3"));
    assert_eq!((fleet.priority, fleet.max_lost), (Some(15), Some(3)));
    assert_eq!((fleet.on_disconnect, fleet.finish_within_seconds), (OnDisconnect::Finish, Some(600)));
    assert_eq!(workflow.document.metadata["owner"], json!("nobody"));
    assert_eq!(workflow.source["document"]["version"], json!("1.2.3-rc.1+build.7"));
    let named = parse(
        b"document: {dsl: 1.0.3, namespace: n, name: w, version: 1.0.0, metadata: {fleet: {priority: low}}}\ndo: []",
    );
    assert_eq!(named.unwrap().workflow.document.fleet.priority, Some(5));
}

#[test]
fn what_all_tasks_share() {
    let workflow = document("tasks.yaml");
    let (name, task) = &workflow.tasks[0];
    assert_eq!((name.as_str(), task.name.as_str(), task.pointer.as_str()), ("prepare", "prepare", "/do/0/prepare"));
    assert_eq!(task.then, Then::Task("each".to_owned()));
    assert_eq!(task.on_lost, OnLost::Fail);
    assert_eq!(task.timeout, Some(Timeout::After(milliseconds(5000))));
    assert_eq!(workflow.task_definition(&task.pointer).unwrap()["then"], json!("each"));
    let again = &workflow.tasks[4].1;
    assert_eq!(workflow.timeout_after(again.timeout.as_ref().unwrap()), Some(&milliseconds(1000)));
    assert_eq!(again.on_lost, OnLost::Retry);
}

#[test]
fn loops_cases_and_catches() {
    let workflow = document("tasks.yaml");
    let TaskKind::For(each) = &workflow.tasks[1].1.kind else { panic!("not a loop") };
    assert_eq!((each.each.as_str(), each.at.as_str(), each.collection.as_str()), ("color", "position", ".colors"));
    assert_eq!(each.condition.as_deref(), Some("$position < 10"));
    assert_eq!(each.tasks[1].1.pointer, "/do/1/each/do/1/choose");
    let TaskKind::Switch(switch) = &each.tasks[1].1.kind else { panic!("not a switch") };
    let ways: Vec<&Then> = switch.cases.iter().map(|(_, case)| &case.then).collect();
    assert_eq!(ways, [&Then::Exit, &Then::Task("last".to_owned()), &Then::Continue]);
    let TaskKind::Try(careful) = &workflow.tasks[3].1.kind else { panic!("not a try") };
    assert_eq!(careful.catch.variable, "problem");
    assert_eq!(careful.catch.errors.as_ref().unwrap().detail.as_deref(), Some("why"));
    assert_eq!(careful.catch.tasks[0].1.pointer, "/do/3/careful/catch/do/0/recover");
    let policy = workflow.retry_policy(careful.catch.retry.as_ref().unwrap()).unwrap();
    assert_eq!((policy.backoff, policy.limit.attempt_count), (Some(Backoff::Exponential), Some(3)));
    assert_eq!(policy.limit.duration, Some(milliseconds(86_400_000)));
    let TaskKind::Try(again) = &workflow.tasks[4].1.kind else { panic!("not a try") };
    let policy = workflow.retry_policy(again.catch.retry.as_ref().unwrap()).unwrap();
    assert_eq!((policy.backoff, &policy.delay), (Some(Backoff::Linear), &Some(milliseconds(1000))));
    assert_eq!((again.catch.variable.as_str(), again.catch.handles), ("error", false));
}

#[test]
fn the_default_case_of_a_switch_is_tried_last_wherever_it_stands() {
    let text = "document: {dsl: 1.0.3, namespace: n, name: w, version: 1.0.0}\n\
                do: [{a: {switch: [{other: {then: end}}, {one: {when: 'true', then: exit}}]}}]";
    let workflow = parse(text.as_bytes()).unwrap().workflow;
    let TaskKind::Switch(switch) = &workflow.tasks[0].1.kind else { panic!("not a switch") };
    let names: Vec<&str> = switch.cases.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["one", "other"]);
}

#[test]
fn calls_and_processes() {
    let workflow = document("calls.yaml");
    let TaskKind::Call(Call::Http(call)) = &workflow.tasks[1].1.kind else { panic!("not http") };
    assert_eq!((call.method.as_str(), call.endpoint.uri.as_str()), ("post", "${ .url }"));
    assert_eq!((call.output, call.redirect), (HttpOutput::Response, true));
    let headers = [("Accept", "application/json"), ("X-Id", "${ .id }")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(call.headers, Some(TextMap::Entries(headers.to_vec())));
    assert_eq!(call.body, Some(json!({"a": [1, "${ .b }"]})));
    let workflow = document("tasks.yaml");
    let TaskKind::Run(run) = &workflow.tasks[5].1.kind else { panic!("not run") };
    assert_eq!((run.awaits, run.returns), (false, ProcessReturn::All));
    assert_eq!(fleet_workflow::needs(&workflow), ["http", "http:fleet.example", "script:js", "script:python", "shell"]);
}

#[test]
fn a_workflow_needs_the_hosts_that_stand_in_it() {
    let needs = |tasks: &str| {
        let head = "document: {dsl: 1.0.3, namespace: n, name: w, version: 1.0.0}\ndo:\n";
        let parsed = fleet_workflow::parse(format!("{head}{tasks}").as_bytes()).expect("a valid file");
        fleet_workflow::needs(&parsed.workflow)
    };
    let call =
        |number: usize, uri: &str| format!("- c{number}: {{call: http, with: {{method: get, endpoint: '{uri}'}}}}\n");
    let known = call(1, "http://B.example/${ .x }") + &call(2, "https://a.example:1/") + &call(3, "${ .url }");
    assert_eq!(needs(&known), ["http", "http:a.example", "http:b.example"]);
    assert_eq!(needs(&call(1, "${ .url }")), ["http"]);
    let many: String = (0..17).map(|number| call(number, &format!("http://h{number}.example/"))).collect();
    assert_eq!(needs(&many), ["http"], "too many to name");
    let script =
        |uri: &str| needs(&format!("- s: {{run: {{script: {{language: python, source: {{endpoint: '{uri}'}}}}}}}}\n"));
    assert_eq!(script("https://a.example/x.py"), ["http", "http:a.example", "script:python"], "it is fetched");
    assert_eq!(script("file:///x.py"), ["script:python"]);

    let function =
        |name: &str, uri: &str| format!("    {name}: {{call: http, with: {{method: get, endpoint: '{uri}'}}}}\n");
    let nested = "    outer: {do: [{inner: {call: called}}]}\n";
    let functions = function("called", "http://a.example/") + &function("other", "http://b.example/") + nested;
    let calls = |name: &str| needs(&format!("- c: {{call: {name}}}\nuse:\n  functions:\n{functions}"));
    assert_eq!(calls("called"), ["http", "http:a.example"], "nobody calls the other");
    assert_eq!(calls("outer"), ["http", "http:a.example"], "a function calls it");
}

#[test]
fn every_task_is_found_wherever_it_stands() {
    let names = |name| {
        let workflow = document(name);
        let mut names: Vec<String> = workflow.all_tasks().into_iter().map(|task| task.name.clone()).collect();
        assert!(workflow.all_tasks().iter().all(|task| workflow.task_definition(&task.pointer).is_some()));
        names.sort();
        names
    };
    let events = names("events.yaml");
    for expected in ["note", "hello", "bye"] {
        assert!(events.contains(&expected.to_owned()), "{expected} in {events:?}");
    }
    let calls = names("calls.yaml");
    assert!(calls.contains(&"keep".to_owned()) && calls.contains(&"greet".to_owned()), "{calls:?}");
    assert!(names("tasks.yaml").contains(&"recover".to_owned()));
}
