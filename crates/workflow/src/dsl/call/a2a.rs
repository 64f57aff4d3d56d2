//! `call: a2a`.

use crate::dsl::fields::Fields;
use crate::dsl::reader::{Place, Reader};
use crate::dsl::resource::{Endpoint, ExternalResource, read_endpoint, read_resource};
use crate::dsl::value::{any, word};
use crate::source::Content;

/// A call of an agent (Agent2Agent protocol).
#[derive(Clone, Debug, PartialEq)]
pub struct A2aCall {
    /// The agent's card.
    pub agent_card: Option<ExternalResource>,
    /// The agent's server.
    pub server: Option<Endpoint>,
    /// The JSON-RPC method.
    pub method: String,
    /// Its parameters: an object, or an expression.
    pub parameters: Option<serde_json::Value>,
}

const METHODS: [&str; 11] = [
    "message/send",
    "message/stream",
    "tasks/get",
    "tasks/list",
    "tasks/cancel",
    "tasks/resubscribe",
    "tasks/pushNotificationConfig/set",
    "tasks/pushNotificationConfig/get",
    "tasks/pushNotificationConfig/list",
    "tasks/pushNotificationConfig/delete",
    "agent/getAuthenticatedExtendedCard",
];

pub(super) fn read(place: &Place<'_>, reader: &mut Reader) -> Option<A2aCall> {
    let what = "`with` of `call: a2a`";
    let mut fields = Fields::open(place, what, reader)?;
    let agent_card = fields.optional("agentCard", reader, read_resource);
    let server = fields.optional("server", reader, read_endpoint);
    let method =
        fields.required("method", reader, |place, reader| word(place, reader, &METHODS.map(|method| (method, method))));
    let parameters = fields.optional("parameters", reader, |place, reader| match &place.node.content {
        Content::Object(members) if members.is_empty() => {
            reader.problem(place, "`parameters` needs at least one key");
            None
        }
        Content::Object(_) | Content::Text(_) => any(place, reader),
        _ => {
            reader.problem(place, format!("must be an object or an expression, not {}", place.node.kind()));
            None
        }
    });
    fields.finish(what, reader);
    Some(A2aCall { agent_card, server, method: method?.to_owned(), parameters })
}
