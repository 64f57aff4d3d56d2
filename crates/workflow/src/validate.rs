//! From the bytes of a file to a valid [`Workflow`], or to every problem of the file with its place.

mod expression;
mod foreign;
mod reference;
mod schema;

use std::collections::BTreeSet;

use crate::dsl::call::Call;
use crate::dsl::reader::Reader;
use crate::dsl::resource::Endpoint;
use crate::dsl::run::{RunTarget, ScriptCode};
use crate::dsl::task::TaskKind;
use crate::dsl::{Workflow, read_workflow};
use crate::hosts;
use crate::problem::{Problem, Severity};
use crate::source::{self, SyntaxError, Tree};

/// A valid file.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The workflow.
    pub workflow: Workflow,
    /// What the author should know: everything that this version cannot run.
    pub warnings: Vec<Problem>,
}

/// Reads and checks a file. `Err` holds every problem of it, in the order of the file, at least one.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Vec<Problem>> {
    read(source::parse(bytes))
}

/// Reads and checks the definition of a job: the JSON that an accepted file came to.
pub fn parse_definition(json: &[u8]) -> Result<Parsed, Vec<Problem>> {
    read(source::parse_definition(json))
}

fn read(tree: Result<Tree, SyntaxError>) -> Result<Parsed, Vec<Problem>> {
    let tree = tree.map_err(|error| vec![problem(error)])?;
    if let Some(problem) = foreign::recognise(&tree.root) {
        return Err(vec![problem]);
    }
    let mut reader = Reader::new();
    for error in tree.errors {
        reader.problem_at(error.pointer, error.position, error.message);
    }
    let workflow = read_workflow(&tree.root, &mut reader);
    reference::check(&tree.root, &mut reader);
    expression::check(&mut reader);
    schema::check(&mut reader);
    match workflow {
        Some(mut workflow) if !reader.has_problems() => {
            workflow.unsupported = std::mem::take(&mut reader.unsupported);
            workflow.unsupported.sort_by_key(|problem| (problem.line, problem.column));
            let mut warnings = workflow.unsupported.clone();
            warnings.iter_mut().for_each(|warning| warning.severity = Severity::Warning);
            Ok(Parsed { workflow, warnings })
        }
        _ => Err(reader.take_problems()),
    }
}

/// What of a workflow this version cannot run: warnings to an author, reasons to refuse it at submit.
pub fn unsupported(workflow: &Workflow) -> Vec<Problem> {
    workflow.unsupported.clone()
}

/// Most hosts that a workflow's needs name; one that calls more is placed as if none were known.
const HOSTS_MAX: usize = 16;

/// The capabilities that a robot needs to run the whole workflow, sorted: `http`, `script:js`, `script:python`, `shell`, and
/// `http:HOST` for each host that stands in the file as it is.
pub fn needs(workflow: &Workflow) -> Vec<String> {
    let (mut found, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for task in workflow.callable_tasks() {
        match &task.kind {
            TaskKind::Call(Call::Http(call)) => need_http(&call.endpoint, &mut found, &mut hosts),
            TaskKind::Run(run) => match &run.target {
                RunTarget::Shell(_) => drop(found.insert("shell".to_owned())),
                RunTarget::Script(script) => {
                    found.insert(format!("script:{}", script.language));
                    if let ScriptCode::Source(source) = &script.code
                        && hosts::is_http(&source.endpoint.uri)
                    {
                        need_http(&source.endpoint, &mut found, &mut hosts);
                    }
                }
                RunTarget::Container(_) | RunTarget::Workflow(_) => {}
            },
            _ => {}
        }
    }
    if hosts.len() <= HOSTS_MAX {
        found.extend(hosts);
    }
    found.into_iter().collect()
}

fn need_http(endpoint: &Endpoint, found: &mut BTreeSet<String>, hosts: &mut BTreeSet<String>) {
    found.insert("http".to_owned());
    hosts.extend(hosts::literal(&endpoint.uri).map(|host| format!("http:{host}")));
}

fn problem(error: SyntaxError) -> Problem {
    Problem::new(error.pointer, error.position, Severity::Error, error.message)
}
