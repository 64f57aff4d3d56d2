//! Valid documents and seeded changes to them: deleted, renamed, repeated and retyped values.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// A small generator of numbers: the same sequence for a seed on every machine.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).expect("below a usize")
    }
}

/// Pointers of all values of a document.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                pointers(child, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, child) in items.iter().enumerate() {
                pointers(child, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// All keys of a document.
pub(crate) fn keys(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, child) in map {
                found.push(key.clone());
                keys(child, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|child| keys(child, found)),
        _ => {}
    }
}

fn substitutes() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(3.0),
        json!(70000),
        json!(""),
        json!("text"),
        json!("${ .a }"),
        json!("PT5S"),
        json!("P"),
        json!("https://fleet.example/a"),
        json!("/a/b"),
        json!("1.0.0"),
        json!("end"),
        json!([]),
        json!(["a"]),
        json!([{}]),
        json!({}),
        json!({"a": 1}),
        json!({"use": "shared"}),
        json!({"seconds": 1}),
        json!({"when": "true", "then": "end"}),
        json!([{"task": {"set": {"a": 1}}}]),
    ]
}

/// Changes one place of a document.
pub(crate) fn mutate(document: &mut Value, vocabulary: &[String], numbers: &mut Numbers) {
    let mut all = Vec::new();
    pointers(document, "", &mut all);
    let target = all[numbers.below(all.len())].clone();
    let donor = document.pointer(&all[numbers.below(all.len())]).cloned().unwrap_or(Value::Null);
    let word = vocabulary[numbers.below(vocabulary.len())].clone();
    let substitutes = substitutes();
    let substitute = substitutes[numbers.below(substitutes.len())].clone();
    let choice = numbers.below(7);
    let pick = numbers.next();
    let Some(place) = document.pointer_mut(&target) else { return };
    match (choice, place) {
        (0, Value::Object(map)) if !map.is_empty() => {
            let key = nth_key(map, pick);
            map.remove(&key);
        }
        (0, Value::Array(items)) if !items.is_empty() => {
            items.remove(index(items.len(), pick));
        }
        (1, Value::Object(map)) if !map.is_empty() => {
            let key = nth_key(map, pick);
            let value = map.remove(&key).unwrap_or(Value::Null);
            map.insert(if pick.is_multiple_of(3) { format!("{key}x") } else { word }, value);
        }
        (2, Value::Object(map)) => {
            map.insert(word, substitute);
        }
        (2, Value::Array(items)) => items.push(substitute),
        (3, Value::Object(map)) => {
            map.insert(word, donor);
        }
        (3, Value::Array(items)) => items.push(donor),
        (4, Value::Array(items)) if !items.is_empty() => {
            let copy = items[index(items.len(), pick)].clone();
            items.push(copy);
        }
        (5, place) => *place = donor,
        (_, place) => *place = substitute,
    }
}

fn index(length: usize, pick: u64) -> usize {
    usize::try_from(pick % (length as u64)).expect("below a usize")
}

fn nth_key(map: &Map<String, Value>, pick: u64) -> String {
    map.keys().nth(index(map.len(), pick)).cloned().unwrap_or_default()
}

/// The valid documents to start from: those of the tests and the examples of the documentation.
pub(crate) fn documents() -> Vec<(PathBuf, Value)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["tests/documents", "../../docs/examples"] {
        for entry in fs::read_dir(here.join(folder)).into_iter().flatten().flatten() {
            paths.push(entry.path());
        }
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "json"));
    paths.sort();
    let read = |path: PathBuf| {
        let tree = fleet_workflow::source::parse(&fs::read(&path).expect("readable")).expect("a tree");
        (path, tree.root.to_value())
    };
    paths.into_iter().map(read).collect()
}
