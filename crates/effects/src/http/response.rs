//! From a server's answer to the result of the call, or the error the language wants. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fleet_workflow::machine::effect::HttpOutput;
use fleet_workflow::machine::event::ErrorObject;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::{Map, Value, json};

use super::request::Prepared;

/// How much of an error response's body goes into the error's detail, characters.
const DETAIL_CHARACTERS_MAX: usize = 512;

/// A server's whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Status.
    pub(crate) status: StatusCode,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// Body bytes.
    pub(crate) body: Bytes,
}

/// The result in the shape asked for, or a `communication` error.
pub(crate) fn shape(
    prepared: &Prepared,
    answer: &Answer,
    output: HttpOutput,
    redirect: bool,
) -> Result<Value, ErrorObject> {
    check_status(prepared, answer, redirect)?;
    Ok(match output {
        HttpOutput::Raw => Value::String(STANDARD.encode(&answer.body)),
        HttpOutput::Content => content(prepared, answer)?,
        HttpOutput::Response => json!({
            "request": {
                "method": prepared.method.as_str(),
                "uri": prepared.url.as_str(),
                "headers": header_object(&prepared.headers),
            },
            "statusCode": answer.status.as_u16(),
            "headers": header_object(&answer.headers),
            "content": content(prepared, answer)?,
        }),
    })
}

/// An error unless the status is 200–299, or up to 399 where redirects are allowed.
pub(crate) fn check_status(prepared: &Prepared, answer: &Answer, redirect: bool) -> Result<(), ErrorObject> {
    let status = answer.status.as_u16();
    let end = if redirect { 400 } else { 300 };
    if (200..end).contains(&status) {
        return Ok(());
    }
    let mut detail = format!("{prepared} answered {}", answer.status);
    let body = String::from_utf8_lossy(&answer.body);
    let body = body.trim();
    if !body.is_empty() {
        detail.push_str(": ");
        detail.extend(body.chars().take(DETAIL_CHARACTERS_MAX));
    }
    Err(ErrorObject::standard("communication", status, answer.status.to_string(), detail))
}

/// The body as the language sees it: JSON if its type says so, else text; `null` if there is none and no type either.
fn content(prepared: &Prepared, answer: &Answer) -> Result<Value, ErrorObject> {
    let media_type = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(essence);
    let is_json = media_type.as_deref().is_some_and(is_json);
    if answer.body.is_empty() && (is_json || media_type.is_none()) {
        return Ok(Value::Null);
    }
    if is_json {
        return serde_json::from_slice(&answer.body).map_err(|error| {
            let detail = format!("{prepared} answered with a body that is not JSON, against its content type: {error}");
            ErrorObject::standard("communication", 500, "invalid response", detail)
        });
    }
    Ok(Value::String(String::from_utf8_lossy(&answer.body).into_owned()))
}

/// A media type without its parameters, lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || media_type == "text/json" || media_type.ends_with("+json")
}

/// Headers as an object; values of a repeated name are joined as RFC 9110 §5.3 has it.
fn header_object(headers: &HeaderMap) -> Value {
    let mut object = Map::new();
    for name in headers.keys() {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        object.insert(name.as_str().to_owned(), Value::String(values.join(", ")));
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use reqwest::{Method, Url};

    use super::*;

    fn prepared() -> Prepared {
        Prepared { method: Method::GET, url: Url::parse("http://h/p").unwrap(), headers: HeaderMap::new(), body: None }
    }

    fn answer(status: u16, content_type: Option<&'static str>, body: &'static str) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn content_follows_its_type() {
        for (content_type, body, expected) in [
            (Some("application/json; charset=utf-8"), "[1]", json!([1])),
            (Some("application/problem+JSON"), "{}", json!({})),
            (Some("text/plain"), "[1]", json!("[1]")),
            (Some("text/plain"), "", json!("")),
            (Some("application/json"), "", json!(null)),
            (None, "x", json!("x")),
            (None, "", json!(null)),
        ] {
            assert_eq!(
                shape(&prepared(), &answer(200, content_type, body), HttpOutput::Content, false).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn statuses_outside_the_range_are_communication_errors() {
        for (status, redirect, fails) in
            [(204, false, false), (301, false, true), (304, true, false), (399, true, false), (400, true, true)]
        {
            let result = shape(&prepared(), &answer(status, None, "why"), HttpOutput::Raw, redirect);
            assert_eq!(result.is_err(), fails, "{status}");
        }
        let error = check_status(&prepared(), &answer(503, None, " busy "), false).unwrap_err();
        assert_eq!(
            (error.status, error.detail.as_deref()),
            (503, Some("GET http://h/p answered 503 Service Unavailable: busy"))
        );
    }

    #[test]
    fn json_that_is_none_is_an_error() {
        let error =
            shape(&prepared(), &answer(200, Some("application/json"), "{"), HttpOutput::Content, false).unwrap_err();
        assert_eq!(error.title.as_deref(), Some("invalid response"));
    }
}
