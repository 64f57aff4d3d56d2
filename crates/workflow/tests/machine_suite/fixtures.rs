//! Workflows that between them use every kind of task, and everything that waits.

use std::sync::Arc;

use fleet_workflow::machine::CompiledWorkflow;
use serde_json::{Value, json};

use crate::driver::{compile, workflow};

/// A workflow and its input.
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    pub(crate) workflow: Arc<CompiledWorkflow>,
    pub(crate) input: Value,
}

const TABLE: [(&str, &str); 14] = [
    ("one call", "- c:\n    call: http\n    with: {method: get, endpoint: 'http://h/{id}'}"),
    ("sets only", "- a:\n    set: {n: '${ .id + 1 }'}\n- b:\n    set: {m: '${ .n * 2 }'}"),
    (
        "five calls with export",
        "- a:\n    call: http\n    with: {method: get, endpoint: 'http://h/a'}\n    export: {as: '{ a: .uri }'}\n\
         - b:\n    call: http\n    with: {method: post, endpoint: 'http://h/b', body: '${ $context }'}\n\
         - c:\n    set: {b: '${ .body }', now: '${ now }'}\n\
         - d:\n    run: {shell: {command: echo, arguments: ['${ .b.a }']}}\n\
         - e:\n    call: http\n    with: {method: get, endpoint: 'http://h/e'}\n    output: {as: '{ d: $input, e: .uri, a: $context.a }'}",
    ),
    (
        "loop with calls",
        "- f:\n    for: {each: x, in: '[1, 2, 3]'}\n    do:\n      - c:\n          call: http\n          with: {method: get, endpoint: 'http://h/x', body: '${ $x }'}\n\
         \x20     - k:\n          set: {seen: '${ [.body] + ($context.seen // []) }'}\n          export: {as: .}",
    ),
    (
        "jumping back",
        "- count:\n    set: {n: '${ (.n // 0) + 1 }'}\n    export: {as: .}\n- call:\n    call: http\n    with: {method: get, endpoint: 'http://h/j'}\n\
         - again:\n    input: {from: $context}\n    switch:\n      - more:\n          when: .n < 4\n          then: count",
    ),
    (
        "fork",
        "- f:\n    fork:\n      branches:\n        - a:\n            do:\n              - a1:\n                  call: http\n                  with: {method: get, endpoint: 'http://h/a1'}\n\
         \x20             - a2:\n                  wait: {seconds: 5}\n              - a3:\n                  call: http\n                  with: {method: get, endpoint: 'http://h/a3'}\n\
         \x20       - b:\n            call: http\n            with: {method: get, endpoint: 'http://h/b'}\n        - c:\n            set: {c: 1}",
    ),
    (
        "competing fork",
        "- f:\n    fork:\n      compete: true\n      branches:\n        - slow:\n            do:\n              - w:\n                  wait: {minutes: 5}\n              - x:\n                  set: {slow: 1}\n\
         \x20       - fast:\n            do:\n              - c:\n                  call: http\n                  with: {method: get, endpoint: 'http://h/c'}\n              - d:\n                  call: http\n                  with: {method: get, endpoint: 'http://h/d'}\n\
         - after:\n    set: {won: '${ .uri }'}",
    ),
    (
        "retry until it works",
        "- t:\n    try:\n      - before:\n          set: {n: 1}\n      - c:\n          call: http\n          with: {method: get, endpoint: 'http://h/third'}\n\
         \x20   catch:\n      retry: {delay: PT1S, backoff: {exponential: {}}, jitter: {from: PT0S, to: PT2S}, limit: {attempt: {count: 5}}}",
    ),
    (
        "retry in vain, then handled",
        "- t:\n    try:\n      - c:\n          call: http\n          with: {method: get, endpoint: 'http://h/status/503'}\n    catch:\n      as: e\n\
         \x20     retry: {delay: PT1S, limit: {attempt: {count: 2, duration: PT1M}}}\n      do:\n        - h:\n            call: http\n            with: {method: post, endpoint: 'http://h/alarm', body: '${ $e }'}\n        - s:\n            set: {alarm: '${ .body.status }', e: '${ $e.status }'}",
    ),
    (
        "uncaught",
        "- a:\n    set: {x: 1}\n- c:\n    call: http\n    with: {method: get, endpoint: 'http://h/status/500'}\n- b:\n    set: {x: 2}",
    ),
    (
        "timeout caught",
        "- t:\n    try:\n      - s:\n          timeout: {after: {seconds: 2}}\n          fork:\n            branches:\n              - w:\n                  wait: {hours: 1}\n              - c:\n                  call: http\n                  with: {method: get, endpoint: 'http://h/c'}\n\
         \x20   catch:\n      errors: {with: {status: 408}}\n      do:\n        - h:\n            set: {late: '${ $error.detail }'}",
    ),
    (
        "waits",
        "- a:\n    wait: {days: 2}\n- b:\n    wait: PT1H\n- c:\n    set: {t: '${ now - $workflow.startedAt.epoch.seconds }'}",
    ),
    (
        "processes",
        "- a:\n    run: {shell: {command: ls}}\n- b:\n    run: {await: false, shell: {command: 'sleep 1'}}\n- c:\n    run: {script: {language: python, code: 'x'}, return: all}",
    ),
    (
        "nested",
        "- o:\n    for: {each: x, in: '[1, 2]', at: i}\n    do:\n      - t:\n          try:\n            - f:\n                fork:\n                  branches:\n                    - p:\n                        for: {each: y, in: '[1, 2]'}\n                        do:\n                          - c:\n                              call: http\n                              with: {method: get, endpoint: 'http://h/p', body: '${ [$x, $y, $i] }'}\n\
         \x20                   - q:\n                        call: http\n                        with: {method: get, endpoint: '${ if $x == 2 then \"http://h/status/500\" else \"http://h/q\" end }'}\n          catch:\n            do:\n              - h:\n                  set: {caught: '${ $error.status }', at: '${ $i }'}",
    ),
];

pub(crate) fn all() -> Vec<Fixture> {
    let fixture = |(name, tasks): (&'static str, &str)| Fixture {
        name,
        workflow: compile(&workflow(tasks)),
        input: json!({"id": 7}),
    };
    TABLE.into_iter().map(fixture).collect()
}
