//! Files of other systems: recognised by their shape, refused in one sentence.

use crate::problem::{Problem, Severity};
use crate::source::{Content, Node};

/// The problem of a file that is no workflow of this language but one of a system we know.
pub(super) fn recognise(root: &Node) -> Option<Problem> {
    let Content::Object(_) = &root.content else { return None };
    if root.get("document").is_some() || root.get("do").is_some() {
        return None;
    }
    let message = if root.get("nodes").is_some() && root.get("connections").is_some() {
        "this is a CasareRPA graph (`nodes` and `connections`); its import comes with a later version"
    } else if root.get("states").is_some() {
        "this is a Demon ritual (`states`); its import comes with a later version"
    } else {
        return None;
    };
    Some(Problem::new(String::new(), root.position, Severity::Error, message.to_owned()))
}
