//! `call: openapi`.

use serde_json::{Map, Value};

use super::http::read_output;
use crate::dsl::authentication::{AuthenticationReference, read_reference};
use crate::dsl::fields::Fields;
use crate::dsl::reader::{Place, Reader};
use crate::dsl::resource::{ExternalResource, read_resource};
use crate::dsl::value::{boolean, object, template};
use crate::machine::effect::HttpOutput;

/// A call of an operation that an OpenAPI document describes.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenApiCall {
    /// The document.
    pub document: ExternalResource,
    /// The operation.
    pub operation_id: String,
    /// Its parameters.
    pub parameters: Map<String, Value>,
    /// How to authenticate.
    pub authentication: Option<AuthenticationReference>,
    /// Shape of the result.
    pub output: HttpOutput,
    /// Whether redirects are followed.
    pub redirect: bool,
}

pub(super) fn read(place: &Place<'_>, reader: &mut Reader) -> Option<OpenApiCall> {
    let what = "`with` of `call: openapi`";
    let mut fields = Fields::open(place, what, reader)?;
    let document = fields.required("document", reader, read_resource);
    let operation_id = fields.required("operationId", reader, template);
    let parameters = fields.optional("parameters", reader, object).unwrap_or_default();
    let authentication = fields.optional("authentication", reader, read_reference);
    let output = fields.optional("output", reader, read_output).unwrap_or_default();
    let redirect = fields.optional("redirect", reader, boolean).unwrap_or(false);
    fields.finish(what, reader);
    Some(OpenApiCall { document: document?, operation_id: operation_id?, parameters, authentication, output, redirect })
}
