//! `call: http`: one request, its redirects and its digest round, as the language defines them.
//!
//! Not a general client: no cookies, no proxy, no decompression, nothing taken from the environment.
//! Invariants: a body is never held beyond [`HTTP_BODY_BYTES_MAX`]; nothing is sent to a host that is not allowed,
//! neither at first nor after a redirect, for a call as for the source of a script.

mod digest;
mod hosts;
mod request;
mod response;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fleet_core::error::chain;
use fleet_core::limits::EFFECT_RESULT_BYTES_MAX;
use fleet_workflow::machine::effect::{Authentication, HttpRequest};
use fleet_workflow::machine::event::{ErrorObject, Outcome};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, StatusCode, redirect};

use crate::error::Error;
use hosts::Refusal;
use request::Prepared;
use response::Answer;

/// Largest body read from a server, bytes.
const HTTP_BODY_BYTES_MAX: usize = EFFECT_RESULT_BYTES_MAX;
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Unused connections kept per host.
const IDLE_PER_HOST_MAX: usize = 128;
/// Redirects followed before giving up.
const REDIRECTS_MAX: usize = 10;

/// The HTTP client of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    direct: Client,
    redirecting: Client,
    allowed_hosts: Arc<[String]>,
}

impl HttpClient {
    /// A client that trusts the public authorities and those in `extra_authorities_pem`, and sends only to hosts that
    /// match one of `allowed_hosts`.
    pub(crate) fn new(extra_authorities_pem: &[u8], allowed_hosts: &[String]) -> Result<Self, Error> {
        let tls = tls::client_config(extra_authorities_pem)?;
        let build = |policy: redirect::Policy| {
            Client::builder()
                .no_proxy()
                .tls_backend_preconfigured(tls.clone())
                .redirect(policy)
                .referer(false)
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
                .user_agent(concat!("fleet/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(Error::HttpClient)
        };
        let allowed_hosts: Arc<[String]> = allowed_hosts.into();
        Ok(Self {
            direct: build(redirect::Policy::none())?,
            redirecting: build(redirects(allowed_hosts.clone()))?,
            allowed_hosts,
        })
    }

    /// Runs `request` under `key` and shapes its result.
    pub(crate) async fn call(&self, key: &str, request: &HttpRequest) -> Outcome {
        match self.try_call(key, request).await {
            Ok(value) => Outcome::Ok(value),
            Err(error) => Outcome::Err(error),
        }
    }

    async fn try_call(&self, key: &str, request: &HttpRequest) -> Result<serde_json::Value, ErrorObject> {
        let prepared = request::prepare(key, request)?;
        let answer = self.exchange(&prepared, request.authentication.as_ref(), request.redirect).await?;
        response::shape(&prepared, &answer, request.output, request.redirect)
    }

    /// The text at an `http` or `https` URI, for a script's source.
    pub(crate) async fn fetch(
        &self,
        key: &str,
        uri: &str,
        authentication: Option<&Authentication>,
    ) -> Result<Bytes, ErrorObject> {
        let prepared = request::prepare_get(key, uri)?;
        let answer = self.exchange(&prepared, authentication, true).await?;
        response::check_status(&prepared, &answer, false)?;
        Ok(answer.body)
    }

    /// Sends `prepared`, once more if the server asks for digest authentication and we have it.
    async fn exchange(
        &self,
        prepared: &Prepared,
        authentication: Option<&Authentication>,
        redirect: bool,
    ) -> Result<Answer, ErrorObject> {
        let authorization = authentication.map(request::authorization).transpose()?.flatten();
        let answer = self.send(prepared, authorization, redirect).await?;
        let Some(Authentication::Digest { username, password }) = authentication else { return Ok(answer) };
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let credentials = digest::Credentials { username, password };
        let Some(header) = digest::answer(&answer.headers, &credentials, prepared, &digest::client_nonce()?) else {
            return Ok(answer);
        };
        self.send(prepared, Some(header), redirect).await
    }

    async fn send(
        &self,
        prepared: &Prepared,
        authorization: Option<HeaderValue>,
        redirect: bool,
    ) -> Result<Answer, ErrorObject> {
        hosts::check(&self.allowed_hosts, &prepared.url).map_err(|refusal| refusal.to_error_object())?;
        let client = if redirect { &self.redirecting } else { &self.direct };
        let mut builder =
            client.request(prepared.method.clone(), prepared.url.clone()).headers(prepared.headers.clone());
        if let Some(authorization) = authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        if let Some(body) = &prepared.body {
            builder = builder.body(body.clone());
        }
        let mut response = builder.send().await.map_err(|error| {
            if let Some(refusal) = Refusal::behind(&error) {
                return refusal.to_error_object();
            }
            let title = if error.is_connect() { "connection failed" } else { "no response" };
            prepared.failed(title, error)
        })?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| prepared.failed("response broke off", error))? {
            if body.len() + chunk.len() > HTTP_BODY_BYTES_MAX {
                let detail = format!("{prepared} answered with more than {HTTP_BODY_BYTES_MAX} bytes");
                return Err(ErrorObject::standard("communication", 500, "response too large", detail));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status: response.status(), headers: response.headers().clone(), body: body.freeze() })
    }
}

/// Follows redirects to allowed hosts, so many and no more.
fn redirects(allowed_hosts: Arc<[String]>) -> redirect::Policy {
    let limited = redirect::Policy::limited(REDIRECTS_MAX);
    redirect::Policy::custom(move |attempt| match hosts::check(&allowed_hosts, attempt.url()) {
        Ok(()) => limited.redirect(attempt),
        Err(refusal) => attempt.error(refusal),
    })
}

impl Prepared {
    /// The error of a request that got no whole response.
    fn failed(&self, title: &str, error: reqwest::Error) -> ErrorObject {
        let detail = format!("{self}: {}", chain(&error.without_url()));
        ErrorObject::standard("communication", 500, title, detail)
    }
}
