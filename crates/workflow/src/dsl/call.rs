//! `call`: a service or a function. The value of `call` tells which; any word that is not a known protocol is the name of
//! a function.

pub mod a2a;
pub mod asyncapi;
pub mod grpc;
pub mod http;
pub mod mcp;
pub mod openapi;

use serde_json::{Map, Value};

use self::a2a::A2aCall;
use self::asyncapi::AsyncApiCall;
use self::grpc::GrpcCall;
use self::http::HttpCall;
use self::mcp::McpCall;
use self::openapi::OpenApiCall;
use super::fields::Fields;
use super::reader::{Component, Place, Reader};
use super::task::TaskList;
use super::value::{object, text};

/// A call.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// `call: http`.
    Http(Box<HttpCall>),
    /// `call: openapi`.
    OpenApi(Box<OpenApiCall>),
    /// `call: grpc`.
    Grpc(Box<GrpcCall>),
    /// `call: asyncapi`.
    AsyncApi(Box<AsyncApiCall>),
    /// `call: a2a`.
    A2a(Box<A2aCall>),
    /// `call: mcp`.
    Mcp(Box<McpCall>),
    /// Any other word: a function.
    Function(FunctionCall),
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionCall {
    /// A name in `use.functions`, `name:version@catalog`, or a URL.
    pub function: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

impl Call {
    /// The task lists directly inside.
    pub(super) fn task_lists(&self) -> Vec<&TaskList> {
        match self {
            Self::AsyncApi(call) => call.task_lists(),
            _ => Vec::new(),
        }
    }
}

pub(super) fn read(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Call> {
    let place = fields.take("call")?;
    let name = text(&place, reader);
    if let Some(kind @ ("openapi" | "grpc" | "asyncapi" | "a2a" | "mcp")) = name.as_deref() {
        reader.cannot_run(&place, format!("`call: {kind}`"));
    }
    match name?.as_str() {
        "http" => fields.required("with", reader, http::read).map(Box::new).map(Call::Http),
        "openapi" => fields.required("with", reader, openapi::read).map(Box::new).map(Call::OpenApi),
        "grpc" => fields.required("with", reader, grpc::read).map(Box::new).map(Call::Grpc),
        "asyncapi" => fields.required("with", reader, asyncapi::read).map(Box::new).map(Call::AsyncApi),
        "a2a" => fields.required("with", reader, a2a::read).map(Box::new).map(Call::A2a),
        "mcp" => fields.required("with", reader, mcp::read).map(Box::new).map(Call::Mcp),
        function => {
            note_function(&place, function, reader);
            let arguments = fields.optional("with", reader, object).unwrap_or_default();
            Some(Call::Function(FunctionCall { function: function.to_owned(), arguments }))
        }
    }
}

/// A function of `use.functions`, of a catalog, or at a URL.
fn note_function(place: &Place<'_>, function: &str, reader: &mut Reader) {
    reader.cannot_run(place, format!("the call of a function (`{function}`)"));
    if function.contains("://") {
        return;
    }
    match function.split_once('@') {
        Some((_, "default")) => {}
        Some((_, catalog)) => reader.reference(Component::Catalog, place, catalog),
        None => reader.reference(Component::Function, place, function),
    }
}
