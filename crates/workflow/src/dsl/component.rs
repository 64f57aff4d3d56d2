//! `use`: components that a workflow names in several places.

use std::collections::BTreeMap;

use super::authentication::{AuthenticationPolicy, read_policy};
use super::duration::Duration;
use super::error::{ErrorDefinition, read_definition};
use super::fields::Fields;
use super::reader::{Place, Reader};
use super::resource::{Endpoint, read_endpoint};
use super::retry::{RetryPolicy, read_policy as read_retry};
use super::task::{Task, TaskList, read_list, read_named, read_timeout_after};
use super::value::{entries, expression, list, single, text, word};

/// The reusable components of a workflow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Components {
    /// Authentication policies.
    pub authentications: BTreeMap<String, AuthenticationPolicy>,
    /// Catalogs of functions, by where they are.
    pub catalogs: BTreeMap<String, Endpoint>,
    /// Errors.
    pub errors: BTreeMap<String, ErrorDefinition>,
    /// Extensions, in the order they apply.
    pub extensions: Vec<(String, Extension)>,
    /// Functions: tasks to be called.
    pub functions: BTreeMap<String, Task>,
    /// Retry policies.
    pub retries: BTreeMap<String, RetryPolicy>,
    /// Names of secrets.
    pub secrets: Vec<String>,
    /// Timeouts.
    pub timeouts: BTreeMap<String, Duration>,
}

impl Components {
    /// The task lists inside extensions.
    pub(crate) fn task_lists(&self) -> impl Iterator<Item = &TaskList> {
        self.extensions.iter().flat_map(|(_, extension)| [&extension.before, &extension.after])
    }
}

/// Tasks to run before and after every task of a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Extension {
    /// The key of the kind of task, or `all`, or `composite`.
    pub extend: String,
    /// Expression that tells whether it applies.
    pub when: Option<String>,
    /// Tasks to run before.
    pub before: TaskList,
    /// Tasks to run after.
    pub after: TaskList,
}

const EXTENDABLE: [&str; 12] =
    ["call", "composite", "emit", "for", "listen", "raise", "run", "set", "switch", "try", "wait", "all"];

pub(super) fn read(place: &Place<'_>, reader: &mut Reader) -> Option<Components> {
    let what = "`use`";
    let mut fields = Fields::open(place, what, reader)?;
    let components = Components {
        authentications: read_map(&mut fields, "authentications", reader, read_policy),
        catalogs: read_map(&mut fields, "catalogs", reader, read_catalog),
        errors: read_map(&mut fields, "errors", reader, read_definition),
        extensions: fields.optional("extensions", reader, read_extensions).unwrap_or_default(),
        functions: read_functions(&mut fields, reader),
        retries: read_map(&mut fields, "retries", reader, read_retry),
        secrets: fields.optional("secrets", reader, read_secrets).unwrap_or_default(),
        timeouts: read_map(&mut fields, "timeouts", reader, read_timeout_after),
    };
    fields.finish(what, reader);
    Some(components)
}

fn read_map<'a, T>(
    fields: &mut Fields<'a>,
    key: &'static str,
    reader: &mut Reader,
    read: impl FnMut(&Place<'a>, &mut Reader) -> Option<T>,
) -> BTreeMap<String, T> {
    let found = fields.optional(key, reader, |place, reader| entries(place, reader, read));
    found.unwrap_or_default().into_iter().collect()
}

/// Functions are tasks, so their names are needed while reading.
fn read_functions(fields: &mut Fields<'_>, reader: &mut Reader) -> BTreeMap<String, Task> {
    let Some(place) = fields.take("functions") else { return BTreeMap::new() };
    let Some(members) = place.members() else {
        reader.problem(&place, format!("must be an object, not {}", place.node.kind()));
        return BTreeMap::new();
    };
    if !members.is_empty() {
        reader.cannot_run(&place, "a function of the workflow's own");
    }
    let mut functions = BTreeMap::new();
    for (member, value) in members {
        if let Some(task) = read_named(&member.key, &value, reader) {
            functions.insert(member.key.clone(), task);
        }
    }
    functions
}

fn read_catalog(place: &Place<'_>, reader: &mut Reader) -> Option<Endpoint> {
    let what = "a catalog";
    let mut fields = Fields::open(place, what, reader)?;
    let endpoint = fields.required("endpoint", reader, read_endpoint);
    fields.finish(what, reader);
    endpoint
}

fn read_secrets(place: &Place<'_>, reader: &mut Reader) -> Option<Vec<String>> {
    let secrets = list(place, reader, text)?;
    if !secrets.is_empty() {
        reader.cannot_run(place, "a workflow with secrets");
    }
    Some(secrets)
}

fn read_extensions(place: &Place<'_>, reader: &mut Reader) -> Option<Vec<(String, Extension)>> {
    let extensions = list(place, reader, |item, reader| {
        let (member, place) = single(item, "an extension", reader)?;
        Some((member.key.clone(), read_extension(&place, reader)?))
    })?;
    if !extensions.is_empty() {
        reader.cannot_run(place, "a workflow with extensions");
    }
    Some(extensions)
}

fn read_extension(place: &Place<'_>, reader: &mut Reader) -> Option<Extension> {
    let what = "an extension";
    let mut fields = Fields::open(place, what, reader)?;
    let extend = fields.required("extend", reader, |place, reader| {
        let pairs = EXTENDABLE.map(|kind| (kind, kind));
        word(place, reader, &pairs)
    });
    let when = fields.optional("when", reader, expression);
    let before = fields.optional("before", reader, read_list).unwrap_or_default();
    let after = fields.optional("after", reader, read_list).unwrap_or_default();
    fields.finish(what, reader);
    Some(Extension { extend: extend?.to_owned(), when, before, after })
}
