//! Bad documents: each is refused whole, with every problem at its line, column and pointer.
//!
//! The tables in `tests/refused/` hold cases between lines of `====`: a document, then for each of its problems, in the
//! order of the file, a line `=> LINE:COLUMN POINTER part of the message`.

use std::fs;
use std::path::Path;

use fleet_workflow::{Problem, Severity, parse};

/// What stands before each document of `tasks.txt`: two lines.
const HEAD: &str = "document: {dsl: 1.0.3, namespace: n, name: w, version: 1.0.0}\ndo:\n";

/// Judges every case of a table; gives the number of cases.
fn judge(table: &str, head: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refused").join(table);
    let text = fs::read_to_string(path).expect("a readable table");
    let mut wrong = Vec::new();
    let cases: Vec<&str> = text.split("====\n").collect();
    for case in &cases {
        let (expected, document): (Vec<&str>, Vec<&str>) = case.lines().partition(|line| line.starts_with("=> "));
        let document = format!("{head}{}", document.join("\n"));
        let problems = parse(document.as_bytes()).err().unwrap_or_default();
        let fits = expected.len() == problems.len()
            && expected.iter().zip(&problems).all(|(expected, problem)| is_as_expected(&expected[3..], problem));
        if !fits || expected.is_empty() {
            let found: Vec<String> = problems.iter().map(show).collect();
            wrong.push(format!("{case}found:\n=> {}\n", found.join("\n=> ")));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    cases.len()
}

fn place(problem: &Problem) -> String {
    format!("{}:{} {}", problem.line, problem.column, problem.pointer)
}

fn show(problem: &Problem) -> String {
    format!("{} {}", place(problem), problem.message)
}

fn is_as_expected(expected: &str, problem: &Problem) -> bool {
    let message = expected.strip_prefix(&place(problem)).and_then(|rest| rest.strip_prefix(' '));
    problem.severity == Severity::Error && message.is_some_and(|message| problem.message.contains(message))
}

#[test]
fn bad_tasks_are_refused_at_their_place() {
    assert!(judge("tasks.txt", HEAD) >= 80);
}

#[test]
fn bad_documents_are_refused_at_their_place() {
    assert!(judge("documents.txt", "") >= 35);
}

#[test]
fn an_empty_file_says_so() {
    for text in ["", "  \n\t", "\u{feff}", "# only a comment\n"] {
        let problems = parse(text.as_bytes()).expect_err("refused");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].message.contains("the file is empty"), "{text:?}: {problems:?}");
    }
}

#[test]
fn what_cannot_run_is_a_warning_at_its_place() {
    let document = format!(
        "{HEAD}- a: {{listen: {{to: {{any: []}}}}}}\n- b: {{call: grpcs}}\n- c: {{set: {{x: '${{ $secrets.key }}'}}}}\n\
         schedule: {{cron: '* * * * *'}}\nuse: {{functions: {{grpcs: {{set: {{x: 1}}}}}}}}\n"
    );
    let parsed = parse(document.as_bytes()).unwrap();
    let places: Vec<(u32, &str)> =
        parsed.warnings.iter().map(|warning| (warning.line, warning.pointer.as_str())).collect();
    let expected =
        [(3, "/do/0/a/listen"), (4, "/do/1/b/call"), (5, "/do/2/c/set/x"), (6, "/schedule"), (7, "/use/functions")];
    assert_eq!(places, expected);
    assert!(parsed.warnings.iter().all(|warning| warning.severity == Severity::Warning));
    let refusals = fleet_workflow::unsupported(&parsed.workflow);
    assert_eq!(refusals.len(), 5);
    assert!(refusals.iter().all(|problem| problem.severity == Severity::Error));
}
