//! Every expression of a file is compiled once, with the variables that exist where it stands.

use std::collections::BTreeMap;

use crate::dsl::reader::{Form, FoundExpression, Reader};
use crate::expr;
use crate::machine::variables;

/// Variables that the language has and this version does not.
const NOT_YET: [&str; 2] = ["secrets", "authorization"];

/// What makes two expressions the same to the compiler: the form, the text and the variables.
type Key = (Form, String, Vec<String>);

/// Reports every expression that does not compile, and notes those that this version cannot run.
pub(super) fn check(reader: &mut Reader) {
    let mut verdicts: BTreeMap<Key, Result<(), String>> = BTreeMap::new();
    for found in std::mem::take(&mut reader.expressions) {
        for name in NOT_YET.into_iter().filter(|name| mentions(&found.text, name)) {
            reader.cannot_run_at(found.pointer.clone(), found.position, format!("an expression with `${name}`"));
        }
        let variables = variables_of(&found, reader);
        let key = (found.form, found.text, variables);
        let verdict = verdicts.get(&key).cloned().unwrap_or_else(|| compile(&key));
        if let Err(why) = &verdict {
            let why = why.strip_prefix("the expression is ").unwrap_or(why);
            reader.problem_at(found.pointer, found.position, format!("invalid expression: {why}"));
        }
        verdicts.insert(key, verdict);
    }
}

/// The variables that exist where an expression stands. One in `use` may name those of any task that might use it.
fn variables_of(found: &FoundExpression, reader: &Reader) -> Vec<String> {
    let mut locals = found.locals.clone();
    if found.in_component {
        locals.extend(reader.all_locals.iter().cloned());
    }
    variables::names(found.stage, &locals).into_iter().map(str::to_owned).collect()
}

fn compile((form, text, variables): &Key) -> Result<(), String> {
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    match form {
        Form::Expression => expr::check(text, &variables),
        Form::Text => expr::check_text(text, &variables),
        Form::Code => expr::check_code(text, &variables),
    }
}

/// Whether a text has `$name` in it, as a word of its own.
fn mentions(text: &str, name: &str) -> bool {
    text.match_indices('$').any(|(index, _)| {
        let rest = text[index + 1..].strip_prefix(name);
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_'))
    })
}
