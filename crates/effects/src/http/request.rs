//! From the language's request to what goes on the wire. Pure.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fleet_workflow::machine::effect::{Authentication, HttpRequest};
use fleet_workflow::machine::event::ErrorObject;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde_json::Value;

/// Header that carries an effect's key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Headers that describe the connection or the framing: they are the client's, not the author's.
const RESERVED: [&str; 5] = ["connection", "content-length", "te", "transfer-encoding", "upgrade"];

/// A request checked and ready to send, without its authorization.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// Method.
    pub(crate) method: Method,
    /// Where to, query included.
    pub(crate) url: Url,
    /// The author's headers, the key, and a content type where there is a body.
    pub(crate) headers: HeaderMap,
    /// Body bytes.
    pub(crate) body: Option<Bytes>,
}

impl fmt::Display for Prepared {
    /// Method and URI without user, password and query: those may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        // Only URLs without a host refuse this, and `http` URLs have one.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        write!(f, "{} {url}", self.method)
    }
}

fn wrong(title: &str, detail: String) -> ErrorObject {
    ErrorObject::standard("configuration", 400, title, detail)
}

/// Checks `request` and adds `key` unless the author set one.
pub(crate) fn prepare(key: &str, request: &HttpRequest) -> Result<Prepared, ErrorObject> {
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| wrong("invalid method", format!("`{}` is not an HTTP method", request.method)))?;
    let mut url = parse_url(&request.uri)?;
    if !request.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&request.query);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let (name, value) = header(name, value)?;
        headers.append(name, value);
    }
    insert_key(&mut headers, key)?;
    let body = request.body.as_ref().map(|body| {
        let (bytes, content_type) = match body {
            Value::String(text) => (Bytes::from(text.clone()), "text/plain; charset=utf-8"),
            other => (Bytes::from(other.to_string()), "application/json"),
        };
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
        bytes
    });
    Ok(Prepared { method, url, headers, body })
}

/// A plain `GET` of `uri` with `key`.
pub(crate) fn prepare_get(key: &str, uri: &str) -> Result<Prepared, ErrorObject> {
    let mut headers = HeaderMap::new();
    insert_key(&mut headers, key)?;
    Ok(Prepared { method: Method::GET, url: parse_url(uri)?, headers, body: None })
}

/// The `Authorization` header for `authentication`, if it can be known before the server's challenge.
pub(crate) fn authorization(authentication: &Authentication) -> Result<Option<HeaderValue>, ErrorObject> {
    let text = match authentication {
        Authentication::Basic { username, password } => {
            format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
        }
        Authentication::Bearer { token } => format!("Bearer {token}"),
        Authentication::Digest { .. } => return Ok(None),
    };
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| wrong("invalid credentials", "the bearer token does not fit a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn parse_url(uri: &str) -> Result<Url, ErrorObject> {
    let url = Url::parse(uri).map_err(|error| wrong("invalid uri", format!("`{uri}` is not a URI: {error}")))?;
    if matches!(url.scheme(), "http" | "https") {
        Ok(url)
    } else {
        Err(wrong("invalid uri", format!("`{uri}` is not an http or https URI")))
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), ErrorObject> {
    let parsed_name =
        HeaderName::try_from(name).map_err(|_| wrong("invalid header", format!("`{name}` is not a header name")))?;
    if RESERVED.contains(&parsed_name.as_str()) {
        return Err(wrong("invalid header", format!("`{name}` is set by the client")));
    }
    let value = HeaderValue::try_from(value)
        .map_err(|_| wrong("invalid header", format!("the value of `{name}` does not fit a header")))?;
    Ok((parsed_name, value))
}

fn insert_key(headers: &mut HeaderMap, key: &str) -> Result<(), ErrorObject> {
    if !headers.contains_key(&IDEMPOTENCY_KEY) {
        let value = HeaderValue::try_from(key)
            .map_err(|_| wrong("invalid effect key", format!("`{key}` does not fit a header")))?;
        headers.insert(IDEMPOTENCY_KEY, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fleet_workflow::machine::effect::HttpOutput;
    use serde_json::json;

    use super::*;

    fn request(headers: &[(&str, &str)], body: Option<Value>) -> HttpRequest {
        HttpRequest {
            method: "POST".to_owned(),
            uri: "http://u:p@example.test/a?x=1".to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            query: vec![("q".to_owned(), "a b&c".to_owned())],
            body,
            output: HttpOutput::Content,
            redirect: false,
            authentication: None,
        }
    }

    #[test]
    fn query_key_and_content_type_are_added() {
        let prepared = prepare("job/path", &request(&[], Some(json!({"a": 1})))).unwrap();
        assert_eq!(prepared.url.query(), Some("x=1&q=a+b%26c"));
        assert_eq!(prepared.headers[IDEMPOTENCY_KEY], "job/path");
        assert_eq!(prepared.headers[CONTENT_TYPE], "application/json");
        assert_eq!(prepared.body.as_deref(), Some(br#"{"a":1}"#.as_slice()));
        assert_eq!(prepared.to_string(), "POST http://example.test/a", "no user, password or query in messages");
    }

    #[test]
    fn what_the_author_set_stays() {
        let author = [("Idempotency-Key", "mine"), ("content-type", "text/csv")];
        let prepared = prepare("job/path", &request(&author, Some(json!("a,b")))).unwrap();
        assert_eq!(prepared.headers[IDEMPOTENCY_KEY], "mine");
        assert_eq!(prepared.headers[CONTENT_TYPE], "text/csv");
        assert_eq!(prepared.body.as_deref(), Some(b"a,b".as_slice()));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_with_its_name() {
        for (bad, word) in [
            (request(&[("a b", "c")], None), "a b"),
            (request(&[("x", "a\nb")], None), "x"),
            (request(&[("Transfer-Encoding", "chunked")], None), "Transfer-Encoding"),
            (HttpRequest { uri: "ftp://x/y".to_owned(), ..request(&[], None) }, "ftp://x/y"),
            (HttpRequest { uri: "/y".to_owned(), ..request(&[], None) }, "/y"),
            (HttpRequest { method: "G T".to_owned(), ..request(&[], None) }, "G T"),
        ] {
            let error = prepare("k", &bad).unwrap_err();
            assert!(error.type_uri.ends_with("/configuration") && error.status == 400);
            assert!(error.detail.unwrap().contains(word));
        }
    }

    #[test]
    fn authorization_of_the_schemes() {
        let basic = Authentication::Basic { username: "Aladdin".to_owned(), password: "open sesame".to_owned() };
        assert_eq!(authorization(&basic).unwrap().unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let bearer = Authentication::Bearer { token: "t".to_owned() };
        assert_eq!(authorization(&bearer).unwrap().unwrap(), "Bearer t");
        assert!(authorization(&Authentication::Bearer { token: "a\nb".to_owned() }).is_err());
    }
}
