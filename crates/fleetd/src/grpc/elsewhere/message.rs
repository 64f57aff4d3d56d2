//! A call of a client as it travels between sites: the method, and the one message. And the same as gRPC has it.

use bytes::{BufMut, Bytes, BytesMut};
use fleet_api::status::error_of;
use fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
use fleet_core::{Error, ErrorKind};
use fleet_store::record::Payload;
use http_body_util::{BodyExt, Full, Limited};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Response};

use super::rules::method_of;

/// Version of the messages of the topic.
const FORMAT: u8 = 1;
/// Bytes before a message in a body of gRPC: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The call of `method` with `message`, for another site.
pub(super) fn write(method: &str, message: &[u8]) -> Payload {
    let mut bytes = BytesMut::with_capacity(2 + method.len() + message.len());
    bytes.put_u8(FORMAT);
    bytes.put_u8(u8::try_from(method.len()).unwrap_or(u8::MAX));
    bytes.put_slice(method.as_bytes());
    bytes.put_slice(message);
    Payload(bytes.freeze())
}

/// Method and message of what another site asks.
pub(super) fn read(message: &Payload) -> Result<(&'static str, &[u8]), Error> {
    let malformed = |what: &str| Error::new(ErrorKind::InvalidInput, format!("read a call of another site: {what}"));
    let (named, message) = match message.as_slice() {
        [FORMAT, length, rest @ ..] => {
            rest.split_at_checked(usize::from(*length)).ok_or_else(|| malformed("it is cut short"))?
        }
        [FORMAT] | [] => return Err(malformed("it is cut short")),
        [format, ..] => {
            return Err(Error::new(ErrorKind::Unsupported, format!("read a call of another site of format {format}")));
        }
    };
    Ok((method_of(std::str::from_utf8(named).map_err(|_| malformed("its method has no name"))?)?, message))
}

/// The one message in `body`.
pub(super) async fn only_message(body: Body) -> Result<Bytes, Error> {
    let wrong = || Error::new(ErrorKind::InvalidInput, "read the message of a call between sites");
    let body = Limited::new(body, PREFIX_BYTES + GRPC_MESSAGE_BYTES_MAX).collect().await;
    let mut bytes = body.map_err(|source| wrong().with_source(source))?.to_bytes();
    let prefix = if bytes.len() < PREFIX_BYTES { Bytes::new() } else { bytes.split_to(PREFIX_BYTES) };
    match prefix.as_ref() {
        [0, length @ ..]
            if <[u8; 4]>::try_from(length).is_ok_and(|length| u32::from_be_bytes(length) as usize == bytes.len()) =>
        {
            Ok(bytes)
        }
        _ => Err(wrong()),
    }
}

/// `message` as the body of a call or an answer.
pub(super) fn body(message: &[u8]) -> Full<Bytes> {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    Full::new(bytes.freeze())
}

/// A good answer with `message`.
pub(super) fn good(message: &[u8]) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut response = Response::new(Body::new(body(message).with_trailers(std::future::ready(Some(Ok(trailers))))));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// The refusal in `headers`, if there is one.
pub(super) fn refusal(headers: &HeaderMap) -> Result<(), Error> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != tonic::Code::Ok => Err(error_of(&status)),
        _ => Ok(()),
    }
}
