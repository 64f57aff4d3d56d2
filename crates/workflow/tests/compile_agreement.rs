//! What the validator accepts without a warning, the interpreter compiles: no job fails for what its file could have told.

mod mutation;

use std::sync::Arc;

use fleet_workflow::machine::CompiledWorkflow;
use mutation::{Numbers, documents, keys, mutate};

const SEED: u64 = 0x5eed_0002;
const MUTANTS_OF_ONE: usize = 50;
const MUTANTS_OF_ALL: usize = 700;

#[test]
fn what_is_valid_and_can_run_compiles() {
    let documents = documents();
    let mut vocabulary = Vec::new();
    documents.iter().for_each(|(_, document)| keys(document, &mut vocabulary));
    let mut numbers = Numbers(SEED);
    let mut compiled = 0;
    for (path, document) in &documents {
        let is_runnable = path.ends_with("runnable.yaml");
        let plain = fleet_workflow::parse(document.to_string().as_bytes()).expect("valid");
        assert!(!is_runnable || plain.warnings.is_empty(), "{:?}", plain.warnings);
        // The examples are small; most of what can differ stands in the one document that has it all.
        let mutants = if is_runnable { MUTANTS_OF_ALL } else { MUTANTS_OF_ONE };
        for round in 0..mutants {
            let mut mutant = document.clone();
            (0..round % 3).for_each(|_| mutate(&mut mutant, &vocabulary, &mut numbers));
            let Ok(parsed) = fleet_workflow::parse(mutant.to_string().as_bytes()) else { continue };
            if parsed.warnings.is_empty() {
                let verdict = CompiledWorkflow::compile(Arc::new(parsed.workflow));
                assert!(verdict.is_ok(), "seed {SEED:#x}, {}: {verdict:?}\n{mutant}", path.display());
                compiled += 1;
            }
        }
    }
    assert!(compiled > 500, "only {compiled} of the mutants can run");
}
