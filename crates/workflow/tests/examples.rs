//! The example workflows of the documentation: all valid, all within what this version can run.

use std::fs;
use std::path::Path;

#[test]
fn every_example_is_valid_and_can_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml" && extension != "json") {
            continue;
        }
        let parsed = fleet_workflow::parse(&fs::read(&path).unwrap())
            .unwrap_or_else(|problems| panic!("{}: {problems:#?}", path.display()));
        assert_eq!(parsed.warnings, [], "{}", path.display());
        let again = fleet_workflow::parse(parsed.workflow.source.to_string().as_bytes()).unwrap();
        assert_eq!(again.workflow, parsed.workflow, "{} is another workflow as JSON", path.display());
        names.push(parsed.workflow.qualified_name());
    }
    names.sort();
    assert!(names.len() >= 10, "{names:?}");
    let mut unique = names.clone();
    unique.dedup();
    assert_eq!(unique, names, "two examples have the same name");
    assert!(names.contains(&"examples/hello:1.0.0".to_owned()), "{names:?}");
}

#[test]
fn the_capabilities_of_a_workflow_are_those_of_its_tasks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    for (name, expected) in [
        ("hello.yaml", &[] as &[&str]),
        ("http-retry.yaml", &["http"]),
        ("shell.yaml", &["shell"]),
        ("python-script.yaml", &["script:python"]),
    ] {
        let parsed = fleet_workflow::parse(&fs::read(folder.join(name)).unwrap()).unwrap();
        assert_eq!(fleet_workflow::needs(&parsed.workflow), expected, "{name}");
    }
}
