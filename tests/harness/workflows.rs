//! The workflows that the suites submit.

use serde_json::json;

/// The namespace of all of them.
pub const NAMESPACE: &str = "test";

/// `steps` calls to the recorder in a row, each answered after `ms` milliseconds.
pub fn calls(recorder: &str, prefix: &str, steps: usize, ms: u64) -> Vec<u8> {
    let tasks: Vec<_> = (0..steps)
        .map(|step| {
            let name = format!("{prefix}{step}");
            let endpoint = format!("{recorder}/{name}?ms={ms}");
            json!({ name: { "call": "http", "with": { "method": "post", "endpoint": endpoint } } })
        })
        .collect();
    document("calls", &json!(tasks))
}

/// The same, and the job's output is the list of its steps, each as the recorder answered it.
pub fn calls_that_add_up(recorder: &str, prefix: &str, steps: usize, ms: u64) -> Vec<u8> {
    let tasks: Vec<_> = (0..steps)
        .map(|step| {
            let name = format!("{prefix}{step}");
            let endpoint = format!("{recorder}/{name}?ms={ms}");
            json!({ name: {
                "call": "http",
                "with": { "method": "post", "endpoint": endpoint },
                "output": { "as": "${ .step }" },
                "export": { "as": "${ {seen: (($context.seen // []) + [.])} }" },
            } })
        })
        .collect();
    let mut document = fields("calls-that-add-up", &json!(tasks));
    document["output"] = json!({ "as": "${ $context.seen }" });
    document.to_string().into_bytes()
}

/// One deterministic task: no effect.
pub fn set_only() -> Vec<u8> {
    document("set-only", &json!([{ "answer": { "set": { "answer": 42 } } }]))
}

/// An expression that takes a second or two (each number has its regular expression compiled anew), then one call.
pub fn think_then_call(recorder: &str, step: &str) -> Vec<u8> {
    let endpoint = format!("{recorder}/{step}");
    let slow = r#"${ [range(3000)] | map(tostring | test("^[0-9]+[a-z]{1,200}$")) | length }"#;
    let tasks = json!([
        { "think": { "set": { "count": slow } } },
        { "call": { "call": "http", "with": { "method": "post", "endpoint": endpoint } } },
    ]);
    document("think-then-call", &tasks)
}

/// A wait, then one call.
pub fn wait_then_call(recorder: &str, step: &str, wait_ms: u64) -> Vec<u8> {
    let endpoint = format!("{recorder}/{step}");
    let tasks = json!([
        { "pause": { "wait": { "milliseconds": wait_ms } } },
        { "call": { "call": "http", "with": { "method": "post", "endpoint": endpoint } } },
    ]);
    document("wait-then-call", &tasks)
}

/// A command that posts once to the recorder, under the effect's key and with the node's name.
fn post(recorder: &str, step: &str) -> String {
    format!(
        "python3 -c 'import os,urllib.request as u; u.urlopen(u.Request(\"{recorder}/{step}?node=\" + os.environ[\"FLEET_NODE\"], data=b\"\", \
         headers={{\"Idempotency-Key\": os.environ[\"FLEET_EFFECT_KEY\"]}}, method=\"POST\"), timeout=2)'"
    )
}

/// A shell loop that posts to the recorder every 100 ms, under the effect's key, until it is ended.
pub fn shell_loop(recorder: &str, step: &str) -> Vec<u8> {
    let script = format!("while true; do {}; sleep 0.1; done", post(recorder, step));
    document("shell-loop", &json!([{ "post": { "run": { "shell": { "command": script } } } }]))
}

/// As [`calls`], in a workflow that may be finished cut off for `seconds`.
pub fn calls_finished_cut_off(recorder: &str, prefix: &str, steps: usize, ms: u64, seconds: u32) -> Vec<u8> {
    finished_cut_off(&calls(recorder, prefix, steps, ms), seconds)
}

/// `workflow`, which may be finished cut off for `seconds`.
pub fn finished_cut_off(workflow: &[u8], seconds: u32) -> Vec<u8> {
    let mut workflow: serde_json::Value = serde_json::from_slice(workflow).expect("it was written as JSON");
    workflow["document"]["metadata"] = json!({ "fleet": { "onDisconnect": "finish", "finishWithinSeconds": seconds } });
    workflow.to_string().into_bytes()
}

/// A process that posts to the recorder `count` times, 100 ms apart, under the effect's key.
pub fn shell_posts(recorder: &str, step: &str, count: usize) -> Vec<u8> {
    let script = format!("for round in $(seq {count}); do {}; sleep 0.1; done", post(recorder, step));
    document("shell-posts", &json!([{ "post": { "run": { "shell": { "command": script } } } }]))
}

fn document(name: &str, tasks: &serde_json::Value) -> Vec<u8> {
    fields(name, tasks).to_string().into_bytes()
}

fn fields(name: &str, tasks: &serde_json::Value) -> serde_json::Value {
    json!({
        "document": { "dsl": "1.0.3", "namespace": NAMESPACE, "name": name, "version": "1.0.0" },
        "do": tasks,
    })
}
