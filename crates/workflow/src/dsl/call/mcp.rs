//! `call: mcp`.

use serde_json::Value;

use crate::dsl::duration::{self, Duration};
use crate::dsl::fields::Fields;
use crate::dsl::reader::{Place, Reader};
use crate::dsl::resource::{Endpoint, read_endpoint};
use crate::dsl::value::{any, entries, template, templates, text, word};
use crate::source::Content;

/// A call of a tool server (Model Context Protocol).
#[derive(Clone, Debug, PartialEq)]
pub struct McpCall {
    /// Version of the protocol.
    pub protocol_version: Option<String>,
    /// The method.
    pub method: String,
    /// Its parameters: an object, or an expression.
    pub parameters: Option<Value>,
    /// When to give up.
    pub timeout: Option<Duration>,
    /// How to reach the server.
    pub transport: McpTransport,
    /// Further settings of the transport.
    pub options: Vec<(String, String)>,
    /// Name and version of the client.
    pub client: Option<McpClient>,
}

/// How to reach a tool server.
#[derive(Clone, Debug, PartialEq)]
pub enum McpTransport {
    /// Over HTTP.
    Http {
        /// Where.
        endpoint: Endpoint,
        /// Headers.
        headers: Vec<(String, String)>,
    },
    /// As a child process.
    Stdio {
        /// The command.
        command: String,
        /// Its arguments.
        arguments: Vec<String>,
        /// Its environment.
        environment: Vec<(String, String)>,
    },
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpClient {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Description.
    pub description: Option<String>,
}

const METHODS: [&str; 7] = [
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/read",
    "resources/templates/list",
];

pub(super) fn read(place: &Place<'_>, reader: &mut Reader) -> Option<McpCall> {
    let what = "`with` of `call: mcp`";
    let mut fields = Fields::open(place, what, reader)?;
    let protocol_version = fields.optional("protocolVersion", reader, text);
    let method =
        fields.required("method", reader, |place, reader| word(place, reader, &METHODS.map(|method| (method, method))));
    let parameters = fields.optional("parameters", reader, |place, reader| match &place.node.content {
        Content::Object(_) | Content::Text(_) => any(place, reader),
        _ => {
            reader.problem(place, format!("must be an object or an expression, not {}", place.node.kind()));
            None
        }
    });
    let timeout = fields.optional("timeout", reader, duration::read);
    let transport = fields.required("transport", reader, read_transport);
    let client = fields.optional("client", reader, read_client);
    fields.finish(what, reader);
    let (transport, options) = transport?;
    Some(McpCall { protocol_version, method: method?.to_owned(), parameters, timeout, transport, options, client })
}

fn read_transport(place: &Place<'_>, reader: &mut Reader) -> Option<(McpTransport, Vec<(String, String)>)> {
    let what = "a transport";
    let mut fields = Fields::open(place, what, reader)?;
    let chosen = fields.exactly_one(&["http", "stdio"], what, reader);
    let options = fields.optional("options", reader, texts).unwrap_or_default();
    fields.finish(what, reader);
    let (key, place) = chosen?;
    let transport = if key == "http" { read_http(&place, reader) } else { read_stdio(&place, reader) };
    Some((transport?, options))
}

fn read_http(place: &Place<'_>, reader: &mut Reader) -> Option<McpTransport> {
    let what = "the HTTP transport";
    let mut fields = Fields::open(place, what, reader)?;
    let endpoint = fields.required("endpoint", reader, read_endpoint);
    let headers = fields.optional("headers", reader, texts).unwrap_or_default();
    fields.finish(what, reader);
    Some(McpTransport::Http { endpoint: endpoint?, headers })
}

fn read_stdio(place: &Place<'_>, reader: &mut Reader) -> Option<McpTransport> {
    let what = "the stdio transport";
    let mut fields = Fields::open(place, what, reader)?;
    let command = fields.required("command", reader, template);
    let arguments = fields.optional("arguments", reader, templates).unwrap_or_default();
    let environment = fields.optional("environment", reader, texts).unwrap_or_default();
    fields.finish(what, reader);
    Some(McpTransport::Stdio { command: command?, arguments, environment })
}

fn texts(place: &Place<'_>, reader: &mut Reader) -> Option<Vec<(String, String)>> {
    entries(place, reader, template)
}

fn read_client(place: &Place<'_>, reader: &mut Reader) -> Option<McpClient> {
    let what = "the client";
    let mut fields = Fields::open(place, what, reader)?;
    let name = fields.required("name", reader, template);
    let version = fields.required("version", reader, template);
    let description = fields.optional("description", reader, template);
    fields.finish(what, reader);
    Some(McpClient { name: name?, version: version?, description })
}
