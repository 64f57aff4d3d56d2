//! Holds our validator against the published schema of the language: valid documents are mutated, and both must agree on
//! every mutant, but for the stated differences. `FLEET_WORKFLOW_SCHEMA` names the schema file.

mod mutation;

use std::collections::BTreeMap;
use std::fs;

use mutation::{Numbers, documents, keys, mutate};
use serde_json::Value;

const SEED: u64 = 0x5eed_0001;
const MUTANTS_PER_DOCUMENT: usize = 600;

/// Something that we refuse and the schema cannot express or leaves open.
struct Stricter {
    /// Part of the pointer of our problem.
    pointer: &'static str,
    /// Part of its message.
    message: &'static str,
    /// Why we refuse it.
    #[expect(dead_code, reason = "stated for the reader")]
    reason: &'static str,
}

const fn stricter(pointer: &'static str, message: &'static str, reason: &'static str) -> Stricter {
    Stricter { pointer, message, reason }
}

/// The stated differences. A mutant that only we refuse must have no problem but these.
const STRICTER: [Stricter; 30] = [
    // Checks across the document, which a schema cannot express.
    stricter("", "in this scope", "targets of `then`, unique names of tasks"),
    stricter("", "is already in this switch", "unique names of cases"),
    stricter("", "a switch has one default case", "the text says so"),
    stricter("", "in `use.", "references into `use`"),
    stricter("/jitter", "must not be longer than `to`", "an order of two values"),
    stricter("/schedule", "a schedule needs exactly one of", "the text says so"),
    stricter("/use/authentications", "an authentication policy", "policies by name are open objects"),
    // Open objects whose keys the text lists: a misspelt key that is ignored does harm.
    stricter("", "in the workflow; ", "the root"),
    stricter("/catch/errors", "unknown key", "error filters"),
    stricter("/with", "in `with` of `call: mcp`; ", "arguments of mcp"),
    stricter("/with/transport", "unknown key", "transport of mcp"),
    stricter("/with/client", "", "client of mcp, whose version is required but not described"),
    stricter("/correlate", "in a correlation; ", "correlations"),
    stricter("/emit/event", "in `event`; ", "events"),
    stricter("/emit/event", "`with` is missing", "an event without attributes has no source and no type"),
    stricter("/oauth2/request", "unknown key", "token requests"),
    stricter("/oidc/request", "unknown key", "token requests"),
    stricter("/oauth2/endpoints", "", "endpoints of oauth2"),
    stricter("/backoff", "in the settings of a backoff; ", "settings of a backoff"),
    stricter("/metadata/fleet", "", "our own settings"),
    stricter("/evaluate", "", "not in the published schema of 1.0.3"),
    // Values that the schema leaves open.
    stricter("", "must be between", "negative durations and counts, impossible statuses"),
    stricter("", "is longer than a hundred years", "our bound of durations"),
    stricter("", "is not a URI: ", "the characters of a URI; the schema wants a scheme only"),
    stricter("/for/", "is not the name of a variable", "expressions could not name it"),
    stricter("/catch/as", "is not the name of a variable", "expressions could not name it"),
    stricter("/foreach/", "is not the name of a variable", "expressions could not name it"),
    stricter("/catch/errors", "`detail` and `details` are the same", "one is an alias of the other"),
    stricter("", "invalid expression", "expressions are compiled"),
    stricter("/schema/document", "not a valid JSON Schema", "schemas are compiled"),
];

/// Our verdict: the problems, none if accepted.
fn ours(document: &Value) -> Vec<fleet_workflow::Problem> {
    fleet_workflow::parse(document.to_string().as_bytes()).err().unwrap_or_default()
}

fn is_stated(problem: &fleet_workflow::Problem) -> bool {
    let fits = |known: &Stricter| problem.pointer.contains(known.pointer) && problem.message.contains(known.message);
    STRICTER.iter().any(fits)
}

#[test]
fn mutants_are_judged_as_the_published_schema_judges_them() {
    let Some(path) = std::env::var_os("FLEET_WORKFLOW_SCHEMA") else {
        eprintln!("skipped: FLEET_WORKFLOW_SCHEMA does not name the published schema (workflow.yaml)");
        return;
    };
    let schema = fleet_workflow::source::parse(&fs::read(path).unwrap()).unwrap().root.to_value();
    let schema = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let documents = documents();
    let mut vocabulary = Vec::new();
    documents.iter().for_each(|(_, document)| keys(document, &mut vocabulary));
    vocabulary.sort();
    vocabulary.dedup();
    let mut numbers = Numbers(SEED);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut differences = Vec::new();
    for (path, document) in &documents {
        assert_eq!(ours(document), [], "{}", path.display());
        assert!(schema.is_valid(document), "{} is not valid for the schema", path.display());
        for _ in 0..MUTANTS_PER_DOCUMENT {
            let mut mutant = document.clone();
            mutate(&mut mutant, &vocabulary, &mut numbers);
            let problems = ours(&mutant);
            let verdict = match (problems.is_empty(), schema.is_valid(&mutant)) {
                (true, true) => "both accept",
                (false, false) => "both refuse",
                (false, true) if problems.iter().all(is_stated) => "only we refuse, as stated",
                (false, true) => {
                    let problem = problems.iter().find(|problem| !is_stated(problem)).unwrap();
                    differences.push(format!("{}: only we refuse: {problem}", path.display()));
                    "different"
                }
                (true, false) => {
                    let changed = first_difference(document, &mutant, "");
                    differences.push(format!("{}: only the schema refuses: {changed}", path.display()));
                    "different"
                }
            };
            *counts.entry(verdict).or_default() += 1;
        }
    }
    eprintln!("seed {SEED:#x}: {counts:?}");
    differences.sort();
    differences.dedup();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    assert!(counts["both accept"] > 500 && counts["both refuse"] > 2000, "the mutants are one-sided: {counts:?}");
}

/// Where a mutant differs from its document, and what stands there.
fn first_difference(document: &Value, mutant: &Value, at: &str) -> String {
    match (document, mutant) {
        (Value::Object(left), Value::Object(right)) if left.keys().eq(right.keys()) => left
            .iter()
            .find(|(key, value)| right.get(*key) != Some(value))
            .map(|(key, value)| first_difference(value, &right[key], &format!("{at}/{key}")))
            .unwrap_or_default(),
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => left
            .iter()
            .zip(right)
            .enumerate()
            .find(|(_, (left, right))| left != right)
            .map(|(index, (left, right))| first_difference(left, right, &format!("{at}/{index}")))
            .unwrap_or_default(),
        _ => format!("{at}: {mutant}"),
    }
}
