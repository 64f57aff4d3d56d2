//! Every expression of a file is compiled once, with the variables that exist where it stands.

use std::collections::BTreeMap;

use crate::dsl::reader::{Form, FoundExpression, Reader, Stage};
use crate::expr;

/// Variables that the language has and this version does not.
const NOT_YET: [&str; 2] = ["secrets", "authorization"];

/// What makes two expressions the same to the compiler.
type Key = (Form, String, Stage, Vec<String>);

/// Reports every expression that does not compile, and notes those that this version cannot run.
pub(super) fn check(reader: &mut Reader) {
    let mut verdicts: BTreeMap<Key, Result<(), String>> = BTreeMap::new();
    for found in std::mem::take(&mut reader.expressions) {
        let FoundExpression { form, text, pointer, position, stage, locals } = found;
        for name in NOT_YET.into_iter().filter(|name| mentions(&text, name)) {
            reader.cannot_run_at(pointer.clone(), position, format!("an expression with `${name}`"));
        }
        let key = (form, text, stage, locals);
        let verdict = match verdicts.get(&key) {
            Some(verdict) => verdict.clone(),
            None => {
                let verdict = compile(&key, reader);
                verdicts.insert(key.clone(), verdict.clone());
                verdict
            }
        };
        if let Err(why) = verdict {
            let hint = if pointer.ends_with("/shell/command") && form == Form::Text {
                " (`${ }` is an expression here; a variable of the shell is written $NAME)"
            } else {
                ""
            };
            let why = why.strip_prefix("the expression is ").unwrap_or(&why);
            reader.problem_at(pointer, position, format!("invalid expression: {why}{hint}"));
        }
    }
}

fn compile((form, text, stage, locals): &Key, reader: &Reader) -> Result<(), String> {
    let mut variables = variables(*stage).to_vec();
    variables.extend(locals.iter().map(String::as_str));
    if *stage == Stage::Component {
        variables.extend(reader.all_locals.iter().map(String::as_str));
    }
    match form {
        Form::Expression => expr::check(text, &variables),
        Form::Text => expr::check_text(text, &variables),
    }
}

/// The variables of a stage, without `$` and without those of enclosing tasks.
fn variables(stage: Stage) -> &'static [&'static str] {
    match stage {
        Stage::WorkflowInput => &["secrets", "workflow", "runtime"],
        Stage::WorkflowOutput => &["context", "secrets", "workflow", "runtime"],
        Stage::TaskInput => &["context", "secrets", "task", "workflow", "runtime"],
        Stage::TaskBody | Stage::TaskOutput | Stage::Component => {
            &["context", "input", "secrets", "task", "workflow", "runtime", "authorization"]
        }
        Stage::TaskExport => &["context", "input", "output", "secrets", "task", "workflow", "runtime", "authorization"],
    }
}

/// Whether a text has `$name` in it, as a word of its own.
fn mentions(text: &str, name: &str) -> bool {
    text.match_indices('$').any(|(index, _)| {
        let rest = text[index + 1..].strip_prefix(name);
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_'))
    })
}
