//! `call: grpc`.

use serde_json::{Map, Value};

use crate::dsl::authentication::{AuthenticationReference, read_reference};
use crate::dsl::fields::Fields;
use crate::dsl::reader::{Place, Reader};
use crate::dsl::resource::{ExternalResource, read_resource};
use crate::dsl::value::{integer, object, template, text};

/// A gRPC call.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcCall {
    /// The proto file.
    pub proto: ExternalResource,
    /// The service.
    pub service: GrpcService,
    /// The method.
    pub method: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

/// A gRPC service.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcService {
    /// Name.
    pub name: String,
    /// Host.
    pub host: String,
    /// Port.
    pub port: Option<u16>,
    /// How to authenticate.
    pub authentication: Option<AuthenticationReference>,
}

pub(super) fn read(place: &Place<'_>, reader: &mut Reader) -> Option<GrpcCall> {
    let what = "`with` of `call: grpc`";
    let mut fields = Fields::open(place, what, reader)?;
    let proto = fields.required("proto", reader, read_resource);
    let service = fields.required("service", reader, read_service);
    let method = fields.required("method", reader, template);
    let arguments = fields.optional("arguments", reader, object).unwrap_or_default();
    fields.finish(what, reader);
    Some(GrpcCall { proto: proto?, service: service?, method: method?, arguments })
}

fn read_service(place: &Place<'_>, reader: &mut Reader) -> Option<GrpcService> {
    let what = "a gRPC service";
    let mut fields = Fields::open(place, what, reader)?;
    let name = fields.required("name", reader, template);
    let host = fields.required("host", reader, read_host);
    let port = fields
        .optional("port", reader, |place, reader| integer(place, reader, 0, i64::from(u16::MAX)))
        .and_then(|port| u16::try_from(port).ok());
    let authentication = fields.optional("authentication", reader, read_reference);
    fields.finish(what, reader);
    Some(GrpcService { name: name?, host: host?, port, authentication })
}

fn read_host(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let host = text(place, reader)?;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    let bytes = host.as_bytes();
    let fits = bytes.len() <= 63
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(|byte| plain(byte) || matches!(byte, b'-' | b'.'));
    if fits {
        return Some(host);
    }
    reader.problem(place, format!("`{host}` is not a host name: 1 to 63 letters, digits, hyphens and dots"));
    None
}
