//! How long the interpreter takes: figures, no verdict. Run with `--ignored --nocapture`.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use crate::driver::{compile, run, web, workflow};

const ROUNDS: u32 = 2_000;

#[test]
#[ignore = "measures, does not judge"]
#[expect(clippy::disallowed_methods, reason = "this is about time")]
fn how_long_a_job_takes() {
    let call = "- c:\n    call: http\n    with: {method: get, endpoint: 'http://h/{id}'}\n    output: {as: .uri}\n";
    let set = "- s:\n    set: {n: '${ .id + 1 }', m: 'x${ .id }', k: '${ .id }'}\n";
    let five: String = (0..5).map(|index| call.replace("- c:", &format!("- c{index}:"))).collect();
    for (name, tasks) in [("one call", call), ("five calls", five.as_str()), ("one set", set)] {
        let definition = workflow(tasks);
        let started = Instant::now();
        let compiled = compile(&definition);
        let compiling = started.elapsed();
        let input = json!({"id": 7});
        let started = Instant::now();
        for _ in 0..ROUNDS {
            assert!(run(&Arc::clone(&compiled), &input, web).machine.is_ended());
        }
        println!("{name}: {:?} a job, {compiling:?} to parse and compile", started.elapsed() / ROUNDS);
    }
}
