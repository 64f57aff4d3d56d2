//! The documents of the conformance kit: all definitions must be accepted, all invalid ones refused.
//! `FLEET_CTK` names the folder of `.feature` files; documents to refuse are expected in `../../invalid` beside it.

use std::fs;
use std::path::{Path, PathBuf};

/// The documents between `"""yaml` and `"""` that follow a step with `heading`, their indentation removed.
fn documents(feature: &str, heading: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = feature.lines();
    while let Some(line) = lines.next() {
        if !line.contains(heading) {
            continue;
        }
        let Some(opening) = lines.next() else { break };
        let indentation = opening.len() - opening.trim_start().len();
        let body = lines.by_ref().take_while(|line| line.trim() != "\"\"\"");
        let text: Vec<&str> = body.map(|line| line.get(indentation..).unwrap_or("")).collect();
        found.push(text.join("\n"));
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()))
        .map(|entry| entry.expect("readable entry").path())
        .collect();
    paths.sort();
    paths
}

#[test]
fn conformance_definitions_are_accepted_and_invalid_ones_refused() {
    let Some(folder) = std::env::var_os("FLEET_CTK").map(PathBuf::from) else {
        eprintln!("skipped: FLEET_CTK does not name the folder of the conformance kit's features");
        return;
    };
    let mut accepted = 0;
    for path in files(&folder) {
        let feature = fs::read_to_string(&path).unwrap();
        for document in documents(&feature, "a workflow with definition") {
            if let Err(problems) = fleet_workflow::parse(document.as_bytes()) {
                panic!("{}: {problems:#?}\n{document}", path.display());
            }
            accepted += 1;
        }
    }
    assert_eq!(accepted, 21, "definitions in {}", folder.display());
    for path in files(&folder.join("../../invalid")) {
        let problems = fleet_workflow::parse(&fs::read(&path).unwrap()).expect_err("must be refused");
        eprintln!("{}: {}", path.display(), problems[0]);
    }
}
