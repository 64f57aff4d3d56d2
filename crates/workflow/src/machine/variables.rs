//! The variables of expressions: which are there at which stage, and what the descriptors look like.

use jiff::Timestamp;

use crate::expr::Val;

/// When an expression is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `input.from` of the workflow.
    WorkflowInput,
    /// `output.as` of the workflow.
    WorkflowOutput,
    /// `if` and `input.from` of a task.
    TaskInput,
    /// The task itself.
    TaskBody,
    /// `output.as` of a task.
    TaskOutput,
    /// `export.as` of a task.
    TaskExport,
}

/// The variables of a stage without `$`, and the local ones of the tasks around.
pub fn names(stage: Stage, locals: &[String]) -> Vec<&str> {
    let named: &[&str] = match stage {
        Stage::WorkflowInput => &["secrets", "workflow", "runtime"],
        Stage::WorkflowOutput => &["context", "secrets", "workflow", "runtime"],
        Stage::TaskInput => &["context", "secrets", "task", "workflow", "runtime"],
        Stage::TaskBody | Stage::TaskOutput => {
            &["context", "input", "secrets", "task", "workflow", "runtime", "authorization"]
        }
        Stage::TaskExport => &["context", "input", "output", "secrets", "task", "workflow", "runtime", "authorization"],
    };
    let mut all = named.to_vec();
    // A local variable that has the name of another one hides it.
    for local in locals.iter().map(String::as_str) {
        if !all.contains(&local) {
            all.push(local);
        }
    }
    all
}

/// `{iso8601, epoch: {seconds, milliseconds}}`.
pub(super) fn date_time(at_ms: u64) -> Val {
    let signed = i64::try_from(at_ms).unwrap_or(i64::MAX);
    let text = Timestamp::from_millisecond(signed).map(|instant| format!("{instant:.3}")).unwrap_or_default();
    let epoch = Val::from_members([("seconds", Val::Int(signed / 1000)), ("milliseconds", Val::Int(signed))]);
    Val::from_members([("iso8601", Val::text(text)), ("epoch", epoch)])
}
