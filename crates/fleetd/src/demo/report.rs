//! The demo's judgement: a pure function of what the fleet says and what the recorder saw.

use std::collections::BTreeMap;

use comfy_table::{ContentArrangement, Table, presets};
use fleet_api::pb::v1;

use super::recorder::Seen;

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The task's name.
    pub task: String,
    /// The node that ran it, from the journal.
    pub node: String,
    /// How often the recorder was asked for it.
    pub runs: u32,
    /// Whether its result was in the journal before the kill.
    pub finished_before_kill: bool,
}

/// What the demo found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// One line a task.
    pub lines: Vec<Line>,
    /// What is wrong; empty if the promise held.
    pub faults: Vec<String>,
}

/// Judges the `job` after its end. `finished` are the tasks whose result was in the journal before `killed` was killed.
pub(super) fn judge(
    job: &v1::Job,
    finished: &[String],
    killed: &str,
    seen: &BTreeMap<(String, String), Seen>,
) -> Verdict {
    let mut faults = Vec::new();
    if job.state != "completed" {
        faults.push(format!("the job is {}, not completed", job.state));
    }
    if job.node == killed {
        faults.push(format!("the job ended on {killed}, which was killed"));
    }
    let lines: Vec<Line> = job
        .tasks
        .iter()
        .map(|task| Line {
            task: task.name.clone(),
            node: task.node.clone(),
            runs: seen.iter().filter(|((step, _), _)| *step == task.name).map(|(_, seen)| seen.started).sum(),
            finished_before_kill: finished.contains(&task.name),
        })
        .collect();
    for line in &lines {
        let allowed = if line.finished_before_kill { 1..=1 } else { 1..=2 };
        if !allowed.contains(&line.runs) {
            faults.push(format!("task {} ran {} times", line.task, line.runs));
        }
    }
    if finished.is_empty() {
        faults.push("no task had finished before the kill, so nothing was shown".to_owned());
    }
    for ((step, key), seen) in seen {
        if seen.answered > 1 {
            faults.push(format!("step {step} was answered {} times under the key {key}", seen.answered));
        }
    }
    Verdict { lines, faults }
}

/// The table for people.
pub(super) fn table(verdict: &Verdict, killed: &str) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["task", "node", "runs", ""]);
    for line in &verdict.lines {
        let remark = match (line.finished_before_kill, line.runs) {
            (true, _) => format!("finished before {killed} was killed: not run again"),
            (false, 2..) => format!("in flight when {killed} was killed: run again with the same key"),
            (false, _) => String::new(),
        };
        table.add_row([line.task.clone(), line.node.clone(), line.runs.to_string(), remark]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: &str, node: &str) -> v1::Job {
        let task =
            |name: &str, node: &str| v1::Task { name: name.to_owned(), node: node.to_owned(), ..v1::Task::default() };
        v1::Job {
            state: state.to_owned(),
            node: node.to_owned(),
            tasks: vec![task("pick", "alpha"), task("pack", "beta")],
            ..v1::Job::default()
        }
    }

    fn seen(rows: &[(&str, u32, u32)]) -> BTreeMap<(String, String), Seen> {
        rows.iter()
            .map(|(step, started, answered)| {
                (((*step).to_owned(), format!("job/{step}")), Seen { started: *started, answered: *answered })
            })
            .collect()
    }

    #[test]
    fn a_step_in_flight_may_run_again_and_a_finished_one_may_not() {
        let finished = vec!["pick".to_owned()];
        let good = judge(&job("completed", "beta"), &finished, "alpha", &seen(&[("pick", 1, 1), ("pack", 2, 1)]));
        assert_eq!(good.faults, Vec::<String>::new());
        let bad = judge(&job("completed", "beta"), &finished, "alpha", &seen(&[("pick", 2, 2), ("pack", 1, 1)]));
        assert!(bad.faults.iter().any(|fault| fault.contains("task pick ran 2 times")), "{:?}", bad.faults);
    }

    #[test]
    fn a_demo_that_shows_nothing_fails() {
        let rows = seen(&[("pick", 1, 1), ("pack", 1, 1)]);
        assert!(!judge(&job("completed", "beta"), &[], "alpha", &rows).faults.is_empty());
        let finished = vec!["pick".to_owned()];
        assert!(!judge(&job("failed", "beta"), &finished, "alpha", &rows).faults.is_empty());
        assert!(!judge(&job("completed", "alpha"), &finished, "alpha", &rows).faults.is_empty());
    }
}
