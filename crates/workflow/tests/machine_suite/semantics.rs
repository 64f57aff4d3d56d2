//! What each kind of task does: tables of workflows, inputs and results.

use crate::driver::{START_MS, compile, context, result, run_tasks, web, workflow};
use fleet_workflow::machine::command::{Command, OnLost};
use fleet_workflow::machine::effect::{Authentication, Effect, HttpOutput, Program};
use fleet_workflow::machine::event::{ERROR_TEXT_BYTES_MAX, ErrorObject, Event};
use fleet_workflow::machine::{Machine, OUTPUT_BYTES_MAX, TaskState};
use serde_json::{Value, json};

#[track_caller]
fn gives(tasks: &str, input: Value, expected: Value) {
    match result(tasks, input, web) {
        Ok(output) => assert_eq!(output, expected, "{tasks}"),
        Err(error) => panic!("{error:?}\n{tasks}"),
    }
}

#[track_caller]
fn fails(tasks: &str, input: Value, slug: &str, status: u16, instance: &str) -> ErrorObject {
    match result(tasks, input, web) {
        Ok(output) => panic!("it completed with {output}\n{tasks}"),
        Err(error) => {
            let expected = (format!("{}{slug}", ErrorObject::TYPE_BASE), status, Some(instance.to_owned()));
            assert_eq!((error.type_uri.clone(), error.status, error.instance.clone()), expected, "{error:?}\n{tasks}");
            error
        }
    }
}

#[test]
fn set_replaces_and_evaluates() {
    gives(
        "- a:\n    set: {x: '${ .n + 1 }', y: [a, '${ .n }']}",
        json!({"n": 1, "z": 0}),
        json!({"x": 2, "y": ["a", 1]}),
    );
    gives("- a:\n    set: '${ {x: .n} }'", json!({"n": 1}), json!({"x": 1}));
    gives("- a:\n    set: {x: 'Hello ${ .n }!'}", json!({"n": 1}), json!({"x": "Hello 1!"}));
    fails("- a:\n    set: {x: '${ error(\"no\") }'}", json!({}), "expression", 400, "/do/0/a");
}

#[test]
fn data_flows_through_input_output_and_export() {
    gives(
        "- a:\n    input: {from: .user}\n    set: {id: '${ .id }', raw: '${ $task.input.user.id }', in: '${ $input.id }'}",
        json!({"user": {"id": 7}}),
        json!({"id": 7, "raw": 7, "in": 7}),
    );
    gives("- a:\n    set: {x: 1}\n    output: {as: .x}\n- b:\n    set: {y: '${ . }'}", json!({}), json!({"y": 1}));
    gives(
        "- a:\n    set: {x: 1}\n    output: {as: '{ x: .x, was: $input.n }'}",
        json!({"n": 5}),
        json!({"x": 1, "was": 5}),
    );
    gives(
        "- a:\n    set: {x: 1}\n    export: {as: '{ kept: $output.x, before: $context.n }'}\n- b:\n    set: {c: '${ $context }'}",
        json!({"n": 5}),
        json!({"c": {"kept": 1, "before": 5}}),
    );
    gives(
        "- a:\n    set: {x: 1}\n    export: {as: {all: '${ . }'}}\n- b:\n    set: '${ $context }'",
        json!({}),
        json!({"all": {"x": 1}}),
    );
    gives(
        "- a:\n    set: {w: '${ $workflow.id }', n: '${ $task.name }', r: '${ $task.reference }', v: '${ $runtime.name }', s: '${ $workflow.startedAt.epoch.seconds }', i: '${ $task.startedAt.iso8601 }', d: '${ $workflow.definition.document.name }', k: '${ $task.definition | keys[0] }'}",
        json!({}),
        json!({"w": "0199-job", "n": "a", "r": "/do/0/a", "v": "fleet", "s": START_MS / 1000, "i": "2023-11-14T22:13:20.000Z", "d": "test", "k": "set"}),
    );
}

#[test]
fn schemas_are_checked_where_the_language_says() {
    let schema = "{schema: {document: {type: object, required: [n], properties: {n: {type: integer}}}}}";
    let error = fails(
        &format!("- a:\n    input: {schema}\n    set: {{x: 1}}"),
        json!({"n": "x"}),
        "validation",
        400,
        "/do/0/a",
    );
    assert!(error.detail.as_deref().unwrap_or("").contains("/n"), "{error:?}");
    gives(&format!("- a:\n    input: {schema}\n    set: {{x: 1}}"), json!({"n": 1}), json!({"x": 1}));
    fails(&format!("- a:\n    output: {schema}\n    set: {{x: 1}}"), json!({}), "validation", 400, "/do/0/a");
    fails(&format!("- a:\n    export: {schema}\n    set: {{x: 1}}"), json!({}), "validation", 400, "/do/0/a");
}

#[test]
fn the_workflow_shapes_its_own_data() {
    let head = "document: {dsl: '1.0.3', namespace: t, name: t, version: '1.0.0'}\n";
    let definition = format!(
        "{head}input: {{from: .payload}}\noutput: {{as: '{{ result: .x, context: $context }}'}}\ndo:\n  - a:\n      set: {{x: '${{ .n }}'}}\n"
    );
    let done = crate::driver::run(&compile(&definition), &json!({"payload": {"n": 3}}), web);
    assert_eq!(done.result(), Ok(json!({"result": 3, "context": {"n": 3}})));
    let definition =
        format!("{head}input: {{schema: {{document: {{type: array}}}}}}\ndo:\n  - a:\n      set: {{x: 1}}\n");
    let done = crate::driver::run(&compile(&definition), &json!({}), web);
    assert_eq!(done.result().unwrap_err().instance.as_deref(), Some("/"));
}

#[test]
fn conditions_skip_a_task_and_its_then() {
    gives(
        "- a:\n    if: .n > 1\n    set: {x: 1}\n    then: end\n- b:\n    set: {y: '${ .n }'}",
        json!({"n": 1}),
        json!({"y": 1}),
    );
    gives(
        "- a:\n    if: ${ .n > 1 }\n    set: {x: 1}\n    then: end\n- b:\n    set: {y: 2}",
        json!({"n": 2}),
        json!({"x": 1}),
    );
    fails("- a:\n    if: .n.x.y | error\n    set: {x: 1}", json!({"n": null}), "expression", 400, "/do/0/a");
}

#[test]
fn then_goes_where_it_says() {
    let add =
        |name: &str, then: &str| format!("- {name}:\n    set: {{c: '${{ .c + [\"{name}\"] }}'}}\n    then: {then}\n");
    gives(&format!("{}{}{}", add("a", "c"), add("b", "end"), add("c", "b")), json!({}), json!({"c": ["a", "c", "b"]}));
    gives(&format!("{}{}", add("a", "exit"), add("b", "continue")), json!({}), json!({"c": ["a"]}));
    gives(
        "- d:\n    do:\n      - a:\n          set: {x: 1}\n          then: exit\n      - b:\n          set: {x: 2}\n- e:\n    set: {y: '${ .x }'}",
        json!({}),
        json!({"y": 1}),
    );
    gives(
        "- d:\n    do:\n      - a:\n          set: {x: 1}\n          then: end\n- e:\n    set: {y: 2}",
        json!({}),
        json!({"x": 1}),
    );
    gives(
        "- count:\n    set: {n: '${ .n + 1 }'}\n- again:\n    switch:\n      - more:\n          when: .n < 5\n          then: count\n- done:\n    set: {total: '${ .n }'}",
        json!({"n": 0}),
        json!({"total": 5}),
    );
}

#[test]
fn an_endless_loop_without_effects_ends() {
    let error = fails("- a:\n    set: {x: 1}\n    then: a", json!({}), "runtime", 500, "/do/0/a");
    assert!(error.detail.unwrap().contains("100000 tasks"));
}

#[test]
fn switch_takes_the_first_match_the_default_or_its_own_then() {
    let cases = "- s:\n    switch:\n      - other:\n          then: c\n      - one:\n          when: .n == 1\n          then: a\n      - small:\n          when: ${ .n < 3 }\n          then: b\n- a:\n    set: {x: a}\n    then: end\n- b:\n    set: {x: b}\n    then: end\n- c:\n    set: {x: c}\n    then: end";
    for (n, expected) in [(1, "a"), (2, "b"), (3, "c")] {
        gives(cases, json!({"n": n}), json!({"x": expected}));
    }
    gives(
        "- s:\n    switch:\n      - one:\n          when: .n == 1\n          then: b\n    then: end\n- b:\n    set: {x: 1}",
        json!({"n": 2}),
        json!({"n": 2}),
    );
    gives(
        "- s:\n    switch:\n      - one:\n          when: .n == 1\n          then: continue\n    then: end\n- b:\n    set: {x: 1}",
        json!({"n": 1}),
        json!({"x": 1}),
    );
}

#[test]
fn for_threads_its_state() {
    gives(
        "- f:\n    for: {each: color, in: .colors}\n    do:\n      - m:\n          set: {p: {c: '${ .p.c + [$color] }', i: '${ .p.i + [$index] }'}}",
        json!({"colors": ["r", "g"]}),
        json!({"p": {"c": ["r", "g"], "i": [0, 1]}}),
    );
    gives(
        "- f:\n    for: {in: .items}\n    do:\n      - m:\n          set: {x: '${ $item }'}",
        json!({"items": []}),
        json!({"items": []}),
    );
    gives(
        "- f:\n    for: {in: '[1,2,3,4]', at: i}\n    while: (.sum // 0) < 3\n    do:\n      - m:\n          set: {sum: '${ (.sum // 0) + $item }', i: '${ $i }'}",
        json!({}),
        json!({"sum": 3, "i": 1}),
    );
    gives(
        "- f:\n    for: {in: '[1,2,3]'}\n    do:\n      - m:\n          set: {last: '${ $item }'}\n      - s:\n          switch:\n            - stop:\n                when: .last == 2\n                then: exit",
        json!({}),
        json!({"last": 2}),
    );
    gives(
        "- f:\n    for: {each: a, in: '[1,2]'}\n    do:\n      - g:\n          for: {each: b, in: '[10,20]'}\n          do:\n            - m:\n                set: {s: '${ .s + [$a * $b] }'}",
        json!({}),
        json!({"s": [10, 20, 20, 40]}),
    );
    fails(
        "- f:\n    for: {in: .n}\n    do:\n      - m:\n          set: {x: 1}",
        json!({"n": 3}),
        "expression",
        400,
        "/do/0/f",
    );
}

#[test]
fn raise_gives_its_error_with_its_place() {
    let done = run_tasks(
        "- d:\n    do:\n      - r:\n          raise:\n            error:\n              type: https://example.com/errors/x\n              status: 418\n              title: '${ \"T \\(.n)\" }'\n              detail: n is ${ .n }",
        &json!({"n": 1}),
        web,
    );
    assert_eq!(
        done.result(),
        Err(ErrorObject {
            type_uri: "https://example.com/errors/x".to_owned(),
            status: 418,
            instance: Some("/do/0/d/do/0/r".to_owned()),
            title: Some("T 1".to_owned()),
            detail: Some("n is 1".to_owned()),
        })
    );
}

const CATCH: &str = "- t:\n    try:\n      - c:\n          call: http\n          with: {method: get, endpoint: 'http://h/status/404'}\n    catch:\n";

#[test]
fn try_catches_what_its_filter_wants() {
    let with =
        |catch: &str| format!("{CATCH}{}", catch.lines().map(|line| format!("      {line}\n")).collect::<String>());
    let handler = "do:\n  - h:\n      set: {error: '${ $error }', input: '${ .n }'}";
    let caught = json!({"error": {"type": format!("{}communication", ErrorObject::TYPE_BASE), "status": 404, "instance": "/do/0/t/try/0/c", "title": "HTTP Error", "detail": "it failed"}, "input": 1});
    gives(&with(handler), json!({"n": 1}), caught.clone());
    for base in [
        "https://serverlessworkflow.io/dsl/errors/types/",
        "https://open-workflow-specification.org/spec/1.0.0/errors/",
        ErrorObject::TYPE_BASE,
    ] {
        gives(
            &with(&format!("errors: {{with: {{type: '{base}communication', status: 404}}}}\n{handler}")),
            json!({"n": 1}),
            caught.clone(),
        );
    }
    for miss in [
        "errors: {with: {status: 503}}",
        "errors: {with: {type: 'https://x.y/z'}}",
        "when: $error.status == 500",
        "exceptWhen: ${ $error.status == 404 }",
        "errors: {with: {instance: /do/0/x}}",
    ] {
        fails(&with(&format!("{miss}\n{handler}")), json!({}), "communication", 404, "/do/0/t/try/0/c");
    }
    gives(
        &with("as: e\nwhen: $e.status == 404 and .n == 1\ndo:\n  - h:\n      set: {s: '${ $e.status }'}"),
        json!({"n": 1}),
        json!({"s": 404}),
    );
    gives(&with("errors: {with: {status: 404}}"), json!({"n": 1}), json!({"n": 1}));
    let rethrown =
        result(&with("do:\n  - h:\n      raise: {error: {type: 'https://x.y/z', status: 1}}"), json!({}), web);
    assert_eq!(rethrown.unwrap_err().instance.as_deref(), Some("/do/0/t/catch/do/0/h"), "not caught by its own try");
}

#[test]
fn fork_joins_in_order_competes_and_fails_fast() {
    let call = |name: &str, uri: &str| {
        format!(
            "        - {name}:\n            call: http\n            with: {{method: get, endpoint: 'http://h/{uri}'}}\n            output: {{as: .uri}}\n"
        )
    };
    let set = |name: &str| format!("        - {name}:\n            set: {{x: {name}}}\n");
    gives(
        &format!("- f:\n    fork:\n      branches:\n{}{}{}", call("z", "1"), set("b"), call("a", "2")),
        json!({}),
        json!(["http://h/1", {"x": "b"}, "http://h/2"]),
    );
    let done = run_tasks(
        &format!("- f:\n    fork:\n      compete: true\n      branches:\n{}{}", call("z", "1"), set("b")),
        &json!({}),
        web,
    );
    assert_eq!(done.result(), Ok(json!({"x": "b"})));
    assert!(
        done.commands.iter().all(|command| !matches!(command, Command::Start { .. } | Command::Cancel { .. })),
        "never begun, never cancelled"
    );
    let done = run_tasks(
        &format!("- f:\n    fork:\n      compete: true\n      branches:\n{}{}", call("z", "1"), call("b", "2")),
        &json!({}),
        web,
    );
    assert_eq!(done.result(), Ok(json!("http://h/1")));
    assert!(
        done.commands
            .iter()
            .any(|command| matches!(command, Command::Cancel { path } if path.0 == "/do/0/f/fork/branches/1/b"))
    );
    fails(
        &format!(
            "- f:\n    fork:\n      branches:\n{}{}",
            call("z", "status/500"),
            "        - w:\n            wait: {seconds: 9}\n"
        ),
        json!({}),
        "communication",
        500,
        "/do/0/f/fork/branches/0/z",
    );
    gives(
        &format!(
            "- f:\n    fork:\n      compete: true\n      branches:\n{}{}",
            call("a", "status/500"),
            call("b", "2")
        ),
        json!({}),
        json!("http://h/2"),
    );
    fails(
        &format!(
            "- f:\n    fork:\n      compete: true\n      branches:\n{}{}",
            call("a", "status/500"),
            call("b", "status/501")
        ),
        json!({}),
        "communication",
        501,
        "/do/0/f/fork/branches/1/b",
    );
    gives(
        &format!(
            "- f:\n    fork:\n      branches:\n{}        - e:\n            set: {{done: 1}}\n            then: end\n- n:\n    set: {{no: 1}}",
            call("z", "1")
        ),
        json!({}),
        json!({"done": 1}),
    );
}

#[test]
fn a_wait_is_one_timer() {
    let done = run_tasks(
        "- w:\n    wait: {minutes: 1}\n- x:\n    wait: PT0.5S\n- y:\n    wait: '${ .d }'",
        &json!({"d": "PT2S"}),
        web,
    );
    assert_eq!(done.result(), Ok(json!({"d": "PT2S"})));
    let due: Vec<(String, u64)> = done
        .commands
        .iter()
        .filter_map(|command| match command {
            Command::SetTimer { path, due_ms } => Some((path.0.clone(), due_ms - START_MS)),
            _ => None,
        })
        .collect();
    assert_eq!(due, [("/do/0/w".to_owned(), 60_000), ("/do/1/x".to_owned(), 60_500), ("/do/2/y".to_owned(), 62_500)]);
    fails("- y:\n    wait: '${ .d }'", json!({"d": 5}), "expression", 400, "/do/0/y");
}

#[test]
fn a_request_has_every_expression_evaluated() {
    let done = run_tasks(
        "- c:\n    metadata: {fleet: {onLost: fail}}\n    timeout: {after: {seconds: 5}}\n    call: http\n    with:\n      method: post\n      endpoint:\n        uri: http://h/{id}/x?q={q}\n        authentication: {basic: {username: '${ .u }', password: p}}\n      headers: {X-N: '${ .id }', X-Null: '${ .none }'}\n      query: '${ {a: .id, b: true} }'\n      body: {n: '${ .id }', list: [1, '${ .u }']}\n      output: response\n      redirect: true",
        &json!({"id": 7, "q": "a b/c", "u": "me"}),
        web,
    );
    let Command::Start { path, task, effect: Effect::Http(request), on_lost, deadline_ms } = &done.commands[1] else {
        panic!("{:?}", done.commands)
    };
    assert_eq!(
        (path.0.as_str(), task.as_str(), *on_lost, *deadline_ms),
        ("/do/0/c", "/do/0/c", OnLost::Fail, Some(START_MS + 5_000))
    );
    assert_eq!((request.method.as_str(), request.uri.as_str()), ("POST", "http://h/7/x?q=a%20b%2Fc"));
    assert_eq!(request.headers, [("X-N".to_owned(), "7".to_owned())]);
    assert_eq!(request.query, [("a".to_owned(), "7".to_owned()), ("b".to_owned(), "true".to_owned())]);
    assert_eq!(request.body, Some(json!({"n": 7, "list": [1, "me"]})));
    assert_eq!((request.output, request.redirect), (HttpOutput::Response, true));
    assert_eq!(
        request.authentication,
        Some(Authentication::Basic { username: "me".to_owned(), password: "p".to_owned() })
    );
    fails(
        "- c:\n    call: http\n    with: {method: get, endpoint: 'http://h/{o}'}",
        json!({"o": {}}),
        "expression",
        400,
        "/do/0/c",
    );
    fails(
        "- c:\n    call: http\n    with: {method: get, endpoint: '${ .u }'}",
        json!({"u": "file:///etc/passwd"}),
        "expression",
        400,
        "/do/0/c",
    );
}

#[test]
fn a_process_has_every_expression_evaluated() {
    let done = run_tasks(
        "- s:\n    run:\n      shell:\n        command: echo $HOME ${ .n } $1\n        arguments: ['${ .n }', x]\n        environment: {A: '${ .n }', B: 2}\n        stdin: in ${ .n }",
        &json!({"n": 1}),
        web,
    );
    let Command::Start { effect: Effect::Process(request), .. } = &done.commands[0] else {
        panic!("{:?}", done.commands)
    };
    assert_eq!(request.program, Program::Shell { command: "echo $HOME 1 $1".to_owned() });
    assert_eq!(request.arguments, ["1", "x"]);
    assert_eq!(request.environment, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())]);
    assert_eq!(request.stdin.as_deref(), Some("in 1"));
    assert_eq!(done.result(), Ok(json!("echo $HOME 1 $1 1 x")));
    gives("- s:\n    run:\n      script: {language: python, code: 'print(1)'}", json!({}), json!("script"));
    gives("- s:\n    run:\n      await: false\n      shell: {command: sleep 9}", json!({"n": 1}), json!({"n": 1}));
}

#[test]
fn timeouts_end_what_runs_and_can_be_caught() {
    let slow = "- t:\n    try:\n      - s:\n          timeout: {after: {seconds: 1}}\n          do:\n            - w:\n                wait: {hours: 1}\n    catch:\n      errors: {with: {status: 408}}\n      do:\n        - h:\n            set: {late: '${ $error.instance }'}";
    let done = run_tasks(slow, &json!({}), web);
    assert_eq!(done.result(), Ok(json!({"late": "/do/0/t/try/0/s"})));
    assert!(
        done.commands
            .iter()
            .any(|command| matches!(command, Command::CancelTimer { path } if path.0 == "/do/0/t/try/0/s/do/0/w"))
    );
    fails(
        "- s:\n    timeout: {after: PT0.005S}\n    call: http\n    with: {method: get, endpoint: 'http://h/x'}",
        json!({}),
        "timeout",
        408,
        "/do/0/s",
    );
    gives(
        "- s:\n    timeout: {after: PT5S}\n    call: http\n    with: {method: get, endpoint: 'http://h/x'}\n    output: {as: .uri}",
        json!({}),
        json!("http://h/x"),
    );
    let definition = format!("{}timeout: {{after: {{seconds: 2}}}}\n", workflow("- w:\n    wait: {hours: 1}"));
    let done = crate::driver::run(&compile(&definition), &json!({}), web);
    assert_eq!((done.result().unwrap_err().status, done.machine.is_timed_out()), (408, true));
}

#[test]
fn retries_wait_as_the_policy_says() {
    let retry = |policy: &str, uri: &str| {
        format!(
            "- t:\n    try:\n      - c:\n          call: http\n          with: {{method: get, endpoint: 'http://h/{uri}'}}\n          output: {{as: .uri}}\n    catch:\n      retry: {policy}\n"
        )
    };
    let delays = |policy: &str| -> Vec<u64> {
        let done = run_tasks(&retry(policy, "status/503"), &json!({}), web);
        assert_eq!(done.result().unwrap_err().status, 503);
        let mut due = Vec::new();
        let mut now_ms = START_MS;
        for event in &done.journal {
            if let (Event::TimerFired { at_ms, .. }, at) = (event, event.at_ms()) {
                due.push(at_ms - now_ms);
                now_ms = at;
            } else {
                now_ms = event.at_ms();
            }
        }
        due
    };
    assert_eq!(delays("{delay: PT1S, limit: {attempt: {count: 3}}}"), [1_000, 1_000, 1_000]);
    assert_eq!(delays("{delay: PT1S, backoff: {linear: {}}, limit: {attempt: {count: 3}}}"), [1_000, 2_000, 3_000]);
    assert_eq!(
        delays("{delay: PT1S, backoff: {exponential: {}}, limit: {attempt: {count: 4}}}"),
        [1_000, 2_000, 4_000, 8_000]
    );
    assert_eq!(delays("{delay: PT1S, limit: {duration: PT2.5S}}"), [1_000, 1_000]);
    assert_eq!(delays("{delay: PT1S, when: $error.status == 500}"), Vec::<u64>::new());
    assert_eq!(delays("{delay: PT1S, exceptWhen: $error.status == 503}"), Vec::<u64>::new());
    let jittered = delays("{delay: PT1S, jitter: {from: PT0S, to: PT1S}, limit: {attempt: {count: 5}}}");
    assert!(
        jittered.iter().all(|delay| (1_000..=2_000).contains(delay))
            && jittered.windows(2).any(|pair| pair[0] != pair[1]),
        "{jittered:?}"
    );
    gives(&retry("{delay: PT1S, limit: {attempt: {count: 3}}}", "third"), json!({}), json!("http://h/third"));
    let done = run_tasks(&retry("{delay: PT1S, limit: {attempt: {count: 3}}}", "third"), &json!({}), web);
    let reports = done.machine.tasks();
    assert_eq!(
        reports.iter().map(|report| (report.name.as_str(), report.runs, report.attempt)).collect::<Vec<_>>(),
        [("t", 1, 3), ("c", 3, 3)]
    );
    let limited = "- t:\n    try:\n      - w:\n          wait: {hours: 1}\n    catch:\n      retry: {delay: PT1S, limit: {attempt: {count: 1, duration: PT5S}}}\n      do:\n        - h:\n            set: {e: '${ $error.status }'}";
    gives(limited, json!({}), json!({"e": 408}));
}

#[test]
fn what_nobody_waits_for_changes_nothing() {
    let compiled = compile(&workflow("- c:\n    call: http\n    with: {method: get, endpoint: 'http://h/x'}"));
    let mut machine = Machine::start(compiled, crate::driver::context(), &json!({}));
    assert!(machine.outstanding().is_empty());
    assert_eq!(machine.apply(&Event::Started { at_ms: 5 }).len(), 1);
    assert_eq!(machine.apply(&Event::Started { at_ms: 6 }), []);
    let nowhere = fleet_workflow::machine::command::EffectPath("/do/9/x".to_owned());
    assert_eq!(machine.apply(&Event::TimerFired { path: nowhere, at_ms: 7 }), []);
    let Some(Command::Start { path, .. }) = machine.outstanding().first().cloned() else { panic!() };
    assert_eq!(machine.apply(&Event::TimerFired { path: path.clone(), at_ms: 7 }), [], "an effect is no timer");
    assert!(!machine.is_started(&path));
    machine.apply(&Event::EffectStarted { path: path.clone(), at_ms: 8 });
    assert!(machine.is_started(&path));
    let commands = machine.apply(&Event::EffectLost { path, at_ms: 9 });
    let [Command::Fail { error }] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(
        (error.type_uri.as_str(), error.instance.as_deref()),
        ("https://serverlessworkflow.io/spec/1.0.0/errors/lost", Some("/do/0/c"))
    );
    assert_eq!(machine.apply(&Event::Overrun { at_ms: 10 }), [], "it ended already");
}

#[test]
fn reports_tell_what_became_of_each_task() {
    let done = run_tasks(
        "- a:\n    set: {x: 1}\n- s:\n    if: 'false'\n    set: {no: 1}\n- f:\n    for: {in: '[1,2]'}\n    do:\n      - c:\n          call: http\n          with: {method: get, endpoint: 'http://h/x'}\n- r:\n    raise: {error: {type: 'https://x.y/z', status: 1}}\n- n:\n    set: {no: 1}",
        &json!({}),
        web,
    );
    let seen: Vec<_> = done
        .machine
        .tasks()
        .into_iter()
        .map(|report| (report.pointer, report.state, report.runs, report.last_event))
        .collect();
    assert_eq!(
        seen,
        [
            ("/do/0/a".to_owned(), TaskState::Completed, 1, Some(0)),
            ("/do/1/s".to_owned(), TaskState::Pending, 0, None),
            ("/do/2/f".to_owned(), TaskState::Completed, 1, Some(2)),
            ("/do/2/f/do/0/c".to_owned(), TaskState::Completed, 2, Some(2)),
            ("/do/3/r".to_owned(), TaskState::Faulted, 1, Some(2)),
            ("/do/4/n".to_owned(), TaskState::Pending, 0, None),
        ]
    );
    let report = &done.machine.tasks()[0];
    assert_eq!(
        (report.input.clone(), report.output.clone(), report.started_ms),
        (Some(json!({})), Some(json!({"x": 1})), Some(START_MS))
    );
}

#[test]
fn costly_expressions_in_a_loop_end_too() {
    let tasks = "- f:\n    for: {in: '[range(1000)]'}\n    do:\n      - s:\n          set: {n: '${ reduce range(100000) as $x (0; . + $x) }'}";
    let error = fails(tasks, json!({}), "expression", 400, "/do/0/f/do/0/s");
    assert!(error.detail.as_deref().unwrap_or("").contains("since the last event"), "{error:?}");
}

#[test]
fn an_expression_past_its_budget_is_an_error_like_any_other() {
    let tasks = "- t:\n    try:\n      - s:\n          set: {n: '${ [repeat(1)] }'}\n    catch:\n      do:\n        - h:\n            set: {caught: '${ $error.type | split(\"/\") | last }'}";
    gives(tasks, json!({}), json!({"caught": "expression"}));
}

#[test]
fn data_nested_too_deep_is_refused() {
    let mut deep = json!(1);
    for _ in 0..110 {
        deep = json!([deep]);
    }
    fails("- s:\n    set: {n: 1}", deep, "validation", 400, "/");
    let grow = "- s:\n    set: {n: '${ . }'}\n    then: s";
    fails(grow, json!({}), "expression", 400, "/do/0/s");
}

#[test]
fn what_is_cancelled_is_taken_back_at_once() {
    let after = "- after:\n    call: http\n    with: {method: get, endpoint: 'http://h/after'}";
    let late = "- t:\n    try:\n      - s:\n          timeout: {after: {seconds: 1}}\n          do:\n            - w:\n                wait: {hours: 1}\n    catch: {errors: {with: {status: 408}}}\n";
    let lost = "- f:\n    fork:\n      compete: true\n      branches:\n        - w:\n            do:\n              - v:\n                  wait: {hours: 1}\n        - c:\n            call: http\n            with: {method: get, endpoint: 'http://h/c'}\n";
    for tasks in [late, lost] {
        let done = run_tasks(&format!("{tasks}{after}"), &json!({}), web);
        let cancelled = done.commands.iter().position(|command| matches!(command, Command::CancelTimer { .. }));
        let next = done
            .commands
            .iter()
            .position(|command| matches!(command, Command::Start { task, .. } if task == "/do/1/after"));
        assert!(cancelled.is_some() && cancelled < next, "{:?}", done.commands);
        assert!(
            done.commands.iter().skip(next.unwrap()).all(|command| !matches!(command, Command::CancelTimer { .. }))
        );
    }
}

#[test]
fn the_nearest_timeout_is_the_deadline() {
    let tasks = "- o:\n    timeout: {after: PT5S}\n    do:\n      - i:\n          timeout: {after: PT1M}\n          call: http\n          with: {method: get, endpoint: 'http://h/c'}";
    let done = run_tasks(tasks, &json!({}), web);
    let deadlines: Vec<_> = done
        .commands
        .iter()
        .filter_map(|command| match command {
            Command::Start { deadline_ms, .. } => Some(*deadline_ms),
            _ => None,
        })
        .collect();
    assert_eq!(deadlines, [Some(START_MS + 5_000)]);
}

#[test]
fn what_is_outstanding_keeps_its_order() {
    let branches: String =
        [9, 1, 5, 3].iter().map(|n| format!("        - b{n}:\n            wait: {{seconds: {n}}}\n")).collect();
    let compiled = compile(&workflow(&format!("- f:\n    fork:\n      branches:\n{branches}")));
    let mut machine = Machine::start(compiled, crate::driver::context(), &json!({}));
    let asked = machine.apply(&Event::Started { at_ms: START_MS });
    assert_eq!(machine.outstanding(), asked);
    assert!(machine.is_waiting_for_time());
    assert_eq!(machine.next_due_ms(), Some(START_MS + 1_000));
}

#[test]
fn an_output_or_error_that_is_too_large_ends_in_a_clear_error_and_does_so_on_every_replay() {
    // With its two quotes and the braces around it: exactly the bound, and one byte more.
    let room = OUTPUT_BYTES_MAX - r#"{"x":""}"#.len();
    for (length, fits) in [(room, true), (room + 1, false)] {
        let tasks = "- a:\n    set: {x: '${ .half + .half }${ .rest }'}";
        let input = json!({"half": "x".repeat(length / 2), "rest": "x".repeat(length % 2)});
        let run = run_tasks(tasks, &input, web);
        match run.result() {
            Ok(output) => assert!(fits && output.to_string().len() == OUTPUT_BYTES_MAX),
            Err(error) => {
                assert!(!fits, "{error:?}");
                assert_eq!((error.status, error.instance.as_deref()), (500, Some("/")));
                assert_eq!(error.detail.as_deref(), Some("the output has more than 1048576 bytes of JSON"));
            }
        }
        let (again, _) = Machine::replay(compile(&workflow(tasks)), context(), &input, &run.journal);
        assert_eq!(again.ended(), run.machine.ended());
    }

    let raise = "- a:\n    raise: {error: {type: 'https://e/t', status: 500, detail: '${ .text }'}}";
    let error = fails_with(raise, json!({"text": "é".repeat(ERROR_TEXT_BYTES_MAX)}));
    assert_eq!(error.detail.map(|detail| detail.len()), Some(ERROR_TEXT_BYTES_MAX));
    // What a `catch` sees is bounded too, so that errors made of errors do not grow.
    let caught = format!(
        "- t:\n    try:\n{}\n    catch: {{do: [{{c: {{set: {{n: '${{ $error.detail | utf8bytelength }}'}}}}}}]}}",
        raise.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
    );
    gives(&caught, json!({"text": "é".repeat(ERROR_TEXT_BYTES_MAX)}), json!({"n": ERROR_TEXT_BYTES_MAX}));
}

fn fails_with(tasks: &str, input: Value) -> ErrorObject {
    result(tasks, input, web).expect_err("it fails")
}
