//! `validate`: every problem of every file, with its place. Needs no network.

use fleet_core::ErrorKind;
use fleet_workflow::{Problem, Severity};
use serde_json::{Value, json};

use crate::cli::ValidateFlags;
use crate::error::Failure;
use crate::input::{STDIN, read_workflow};
use crate::render::{self, Format};

pub(crate) fn run(flags: &ValidateFlags, format: Format) -> Result<(), Failure> {
    let mut all = Vec::new();
    for file in &flags.files {
        let bytes = read_workflow(file)?;
        let problems = match fleet_workflow::parse(&bytes) {
            Ok(parsed) => parsed.warnings,
            Err(problems) => problems,
        };
        all.push((file.as_str(), problems));
    }
    let valid = all.iter().all(|(_, problems)| is_valid(problems));
    if format == Format::Table {
        for (file, problems) in &all {
            problems.iter().for_each(|problem| render::say(&line(file, problem)));
            if is_valid(problems) {
                render::line(&format!("{} is valid", name(file)))?;
            }
        }
    } else {
        let files: Vec<_> = all.iter().map(|(file, problems)| report(file, problems)).collect();
        render::data(format, &json!({"valid": valid, "files": files}), String::new)?;
    }
    if valid { Ok(()) } else { Err(Failure::Said(ErrorKind::InvalidInput)) }
}

fn is_valid(problems: &[Problem]) -> bool {
    problems.iter().all(|problem| problem.severity == Severity::Warning)
}

/// A problem where editors and people look for it: `file:line:column: pointer: message`.
pub(crate) fn line(file: &str, problem: &Problem) -> String {
    let word = match problem.severity {
        Severity::Error => "",
        Severity::Warning => "warning: ",
    };
    let pointer = if problem.pointer.is_empty() { "/" } else { &problem.pointer };
    let text = format!("{}:{}:{}: {pointer}: {word}{}", name(file), problem.line, problem.column, problem.message);
    render::plain(&text)
}

fn name(file: &str) -> &str {
    if file == STDIN { "<stdin>" } else { file }
}

fn report(file: &str, problems: &[Problem]) -> Value {
    let problems: Vec<_> = problems
        .iter()
        .map(|problem| {
            let severity = match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            json!({
                "pointer": problem.pointer,
                "line": problem.line,
                "column": problem.column,
                "severity": severity,
                "message": problem.message,
            })
        })
        .collect();
    json!({"file": name(file), "valid": problems.iter().all(|one| one["severity"] == "warning"), "problems": problems})
}
