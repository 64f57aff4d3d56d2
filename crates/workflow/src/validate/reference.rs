//! Names that must exist under `use`.

use std::collections::{BTreeMap, BTreeSet};

use crate::dsl::reader::{Component, Reader};
use crate::source::{Content, Node};

/// How many names a message lists.
const NAMES_LISTED: usize = 8;

/// Reports every reference to a component that is not there. The names are taken from the tree, so that a component with
/// problems of its own still counts.
pub(super) fn check(root: &Node, reader: &mut Reader) {
    let mut known: BTreeMap<Component, BTreeSet<&str>> = BTreeMap::new();
    for reference in std::mem::take(&mut reader.references) {
        let names = known.entry(reference.component).or_insert_with(|| names(root, reference.component));
        if names.contains(reference.name.as_str()) {
            continue;
        }
        let key = reference.component.key();
        let hint = match reader.suggestion(&reference.name, names.iter().copied()) {
            Some(close) => format!("did you mean `{close}`?"),
            None if names.is_empty() => format!("`use.{key}` has no entries"),
            None => {
                format!("`use.{key}` has {}", names.iter().take(NAMES_LISTED).copied().collect::<Vec<_>>().join(", "))
            }
        };
        let message = format!("no `{}` in `use.{key}`; {hint}", reference.name);
        reader.problem_at(reference.pointer, reference.position, message);
    }
}

fn names(root: &Node, component: Component) -> BTreeSet<&str> {
    let listed = root.get("use").and_then(|components| components.get(component.key()));
    match listed.map(|node| &node.content) {
        Some(Content::Object(members)) => members.iter().map(|member| member.key.as_str()).collect(),
        Some(Content::Array(items)) => items.iter().filter_map(as_text).collect(),
        _ => BTreeSet::new(),
    }
}

fn as_text(node: &Node) -> Option<&str> {
    match &node.content {
        Content::Text(text) => Some(text),
        _ => None,
    }
}
