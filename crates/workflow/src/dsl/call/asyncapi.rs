//! `call: asyncapi`.

use serde_json::{Map, Value};

use crate::dsl::authentication::{AuthenticationReference, read_reference};
use crate::dsl::duration::{self, Duration};
use crate::dsl::event::{SubscriptionIterator, read_iterator};
use crate::dsl::fields::Fields;
use crate::dsl::reader::{Form, Place, Reader};
use crate::dsl::resource::{ExternalResource, read_resource};
use crate::dsl::task::TaskList;
use crate::dsl::value::{integer, is_evaluated, object, template, text, word};

/// A call that an AsyncAPI document describes.
#[derive(Clone, Debug, PartialEq)]
pub struct AsyncApiCall {
    /// The document.
    pub document: ExternalResource,
    /// What of it.
    pub target: AsyncApiTarget,
    /// Which server.
    pub server: Option<AsyncApiServer>,
    /// The protocol that chooses the server.
    pub protocol: Option<String>,
    /// Publish or subscribe.
    pub action: AsyncApiAction,
    /// How to authenticate.
    pub authentication: Option<AuthenticationReference>,
}

/// What of a document is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AsyncApiTarget {
    /// A channel (AsyncAPI 2.6).
    Channel(String),
    /// An operation (AsyncAPI 3.0).
    Operation(String),
}

/// A server of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct AsyncApiServer {
    /// Name.
    pub name: String,
    /// Variables.
    pub variables: Map<String, Value>,
}

/// Publish or subscribe.
#[derive(Clone, Debug, PartialEq)]
pub enum AsyncApiAction {
    /// Publish.
    Message {
        /// Payload.
        payload: Option<Map<String, Value>>,
        /// Headers.
        headers: Option<Map<String, Value>>,
    },
    /// Subscribe.
    Subscription(Box<AsyncApiSubscription>),
}

/// A subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct AsyncApiSubscription {
    /// Expression that filters messages.
    pub filter: Option<String>,
    /// For how long at most.
    pub during: Option<Duration>,
    /// When to stop.
    pub consume: Consume,
    /// What is done for each message.
    pub foreach: Option<SubscriptionIterator>,
}

/// When a subscription stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consume {
    /// After so many messages.
    Amount(u64),
    /// When an expression is no longer true.
    While(String),
    /// When an expression is true.
    Until(String),
}

impl AsyncApiCall {
    /// The task lists directly inside.
    pub(super) fn task_lists(&self) -> Vec<&TaskList> {
        match &self.action {
            AsyncApiAction::Subscription(subscription) => subscription.foreach.iter().map(|each| &each.tasks).collect(),
            AsyncApiAction::Message { .. } => Vec::new(),
        }
    }
}

const PROTOCOLS: [&str; 19] = [
    "amqp",
    "amqp1",
    "anypointmq",
    "googlepubsub",
    "http",
    "ibmmq",
    "jms",
    "kafka",
    "mercure",
    "mqtt",
    "mqtt5",
    "nats",
    "pulsar",
    "redis",
    "sns",
    "solace",
    "sqs",
    "stomp",
    "ws",
];

pub(super) fn read(place: &Place<'_>, reader: &mut Reader) -> Option<AsyncApiCall> {
    let what = "`with` of `call: asyncapi`";
    let mut fields = Fields::open(place, what, reader)?;
    let document = fields.required("document", reader, read_resource);
    let target = fields.exactly_one(&["channel", "operation"], what, reader);
    let target = target.and_then(|(key, place)| {
        let name = template(&place, reader)?;
        Some(if key == "channel" { AsyncApiTarget::Channel(name) } else { AsyncApiTarget::Operation(name) })
    });
    let server = fields.optional("server", reader, read_server);
    let protocol = fields.optional("protocol", reader, |place, reader| {
        word(place, reader, &PROTOCOLS.map(|protocol| (protocol, protocol))).map(str::to_owned)
    });
    let action = fields.exactly_one(&["message", "subscription"], what, reader);
    let action = action.and_then(|(key, place)| match key {
        "message" => read_message(&place, reader),
        _ => read_subscription(&place, reader).map(Box::new).map(AsyncApiAction::Subscription),
    });
    let authentication = fields.optional("authentication", reader, read_reference);
    fields.finish(what, reader);
    Some(AsyncApiCall { document: document?, target: target?, server, protocol, action: action?, authentication })
}

fn read_server(place: &Place<'_>, reader: &mut Reader) -> Option<AsyncApiServer> {
    let what = "a server";
    let mut fields = Fields::open(place, what, reader)?;
    let name = fields.required("name", reader, template);
    let variables = fields.optional("variables", reader, object).unwrap_or_default();
    fields.finish(what, reader);
    Some(AsyncApiServer { name: name?, variables })
}

fn read_message(place: &Place<'_>, reader: &mut Reader) -> Option<AsyncApiAction> {
    let what = "a message";
    let mut fields = Fields::open(place, what, reader)?;
    let payload = fields.optional("payload", reader, object);
    let headers = fields.optional("headers", reader, object);
    fields.finish(what, reader);
    Some(AsyncApiAction::Message { payload, headers })
}

fn read_subscription(place: &Place<'_>, reader: &mut Reader) -> Option<AsyncApiSubscription> {
    let what = "a subscription";
    let mut fields = Fields::open(place, what, reader)?;
    let filter = fields.optional("filter", reader, enclosed_expression);
    let consume = fields.required("consume", reader, read_consume);
    let foreach = fields.optional("foreach", reader, read_iterator);
    fields.finish(what, reader);
    let (during, consume) = consume?;
    Some(AsyncApiSubscription { filter, during, consume, foreach })
}

fn read_consume(place: &Place<'_>, reader: &mut Reader) -> Option<(Option<Duration>, Consume)> {
    let what = "`consume`";
    let mut fields = Fields::open(place, what, reader)?;
    let during = fields.optional("for", reader, duration::read);
    let chosen = fields.exactly_one(&["amount", "while", "until"], what, reader);
    fields.finish(what, reader);
    let (key, place) = chosen?;
    let consume = match key {
        "amount" => {
            let amount = integer(&place, reader, 0, i64::MAX)?;
            Consume::Amount(amount.unsigned_abs())
        }
        "while" => Consume::While(enclosed_expression(&place, reader)?),
        _ => Consume::Until(enclosed_expression(&place, reader)?),
    };
    Some((during, consume))
}

/// An expression that must stand in `${ }`.
fn enclosed_expression(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let text = text(place, reader)?;
    if !is_evaluated(&text) {
        reader.problem(place, "must be an expression in ${ }");
        return None;
    }
    reader.note_expression(place, Form::Text, &text);
    Some(text)
}
