//! `call: http`: the request, with every expression evaluated, is an effect.

use super::super::Machine;
use super::super::effect::{Authentication, Effect, HttpOutput, HttpRequest};
use super::super::event::ErrorObject;
use super::super::fault;
use super::super::plan::Builder;
use super::super::state::ActivationId;
use super::super::variables::Stage;
use crate::dsl::authentication::{AuthenticationPolicy, AuthenticationReference, BearerToken, Credentials};
use crate::dsl::call::http::{HttpCall, TextMap};
use crate::dsl::resource::Endpoint as Definition;
use crate::expr::Template;
use crate::expr::template::to_text;
use crate::expr::uri::UriTemplate;
use crate::expr::val::Val;

/// A call over HTTP.
#[derive(Debug)]
pub(in super::super) struct Http {
    method: Template,
    endpoint: Endpoint,
    headers: Option<Pairs>,
    query: Option<Pairs>,
    body: Option<Template>,
    output: HttpOutput,
    redirect: bool,
}

/// Where something is and how to authenticate there.
#[derive(Debug)]
pub(in super::super) struct Endpoint {
    uri: UriTemplate,
    authentication: Option<Policy>,
}

/// Authentication whose values are evaluated.
#[derive(Debug)]
enum Policy {
    Basic(Template, Template),
    Bearer(Template),
    Digest(Template, Template),
}

/// Names and texts.
#[derive(Debug)]
pub(super) enum Pairs {
    Entries(Vec<(String, Template)>),
    Expression(Template),
}

pub(super) fn compile(builder: &mut Builder<'_>, pointer: &str, call: &HttpCall) -> Option<Http> {
    Some(Http {
        method: builder.text(pointer, &call.method)?,
        endpoint: compile_endpoint(builder, pointer, &call.endpoint)?,
        headers: compile_pairs(builder, pointer, call.headers.as_ref())?,
        query: compile_pairs(builder, pointer, call.query.as_ref())?,
        body: match &call.body {
            Some(body) => Some(builder.value(pointer, body)?),
            None => None,
        },
        output: call.output,
        redirect: call.redirect,
    })
}

fn compile_pairs(builder: &mut Builder<'_>, pointer: &str, pairs: Option<&TextMap>) -> Option<Option<Pairs>> {
    Some(match pairs {
        None => None,
        Some(TextMap::Expression(text)) => {
            Some(Pairs::Expression(builder.expression(Stage::TaskBody, pointer, text)?))
        }
        Some(TextMap::Entries(entries)) => {
            let entries = entries.iter().map(|(name, text)| Some((name.clone(), builder.text(pointer, text)?)));
            Some(Pairs::Entries(entries.collect::<Option<_>>()?))
        }
    })
}

pub(super) fn compile_endpoint(builder: &mut Builder<'_>, pointer: &str, endpoint: &Definition) -> Option<Endpoint> {
    let uri = builder.with_variables(Stage::TaskBody, pointer, |names| UriTemplate::compile(&endpoint.uri, names))?;
    let authentication = match &endpoint.authentication {
        Some(reference) => Some(compile_policy(builder, pointer, reference)?),
        None => None,
    };
    Some(Endpoint { uri, authentication })
}

fn compile_policy(builder: &mut Builder<'_>, pointer: &str, reference: &AuthenticationReference) -> Option<Policy> {
    let workflow = builder.workflow;
    let policy = match reference {
        AuthenticationReference::Inline(policy) => Some(policy),
        AuthenticationReference::Named(name) => workflow.components.authentications.get(name),
    };
    match policy {
        Some(AuthenticationPolicy::Basic(Credentials::Inline { username, password })) => {
            Some(Policy::Basic(builder.text(pointer, username)?, builder.text(pointer, password)?))
        }
        Some(AuthenticationPolicy::Digest(Credentials::Inline { username, password })) => {
            Some(Policy::Digest(builder.text(pointer, username)?, builder.text(pointer, password)?))
        }
        Some(AuthenticationPolicy::Bearer(BearerToken::Inline(token))) => {
            Some(Policy::Bearer(builder.text(pointer, token)?))
        }
        Some(_) => {
            builder.error(pointer, "this authentication cannot be used in this version");
            None
        }
        None => {
            builder.error(pointer, "the authentication is not in `use.authentications`");
            None
        }
    }
}

impl Machine {
    pub(super) fn start_http(&mut self, id: ActivationId, plan: &Http) -> Result<(), ErrorObject> {
        let method = to_text(&self.evaluate_body(id, &plan.method)?).to_ascii_uppercase();
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-') {
            return Err(fault::expression(format!("`{method}` is not an HTTP method")));
        }
        let (uri, authentication) = self.evaluate_endpoint(id, &plan.endpoint)?;
        if !uri.starts_with("http://") && !uri.starts_with("https://") {
            return Err(fault::expression(format!("`{uri}` is not an HTTP address")));
        }
        let body = match &plan.body {
            Some(body) => Some(self.evaluate_body(id, body)?.to_json()),
            None => None,
        };
        let request = HttpRequest {
            method,
            uri,
            headers: self.evaluate_pairs(id, plan.headers.as_ref(), "headers")?,
            query: self.evaluate_pairs(id, plan.query.as_ref(), "query")?,
            body,
            output: plan.output,
            redirect: plan.redirect,
            authentication,
        };
        self.start_effect(id, Effect::Http(request));
        Ok(())
    }

    pub(super) fn evaluate_endpoint(
        &self,
        id: ActivationId,
        endpoint: &Endpoint,
    ) -> Result<(String, Option<Authentication>), ErrorObject> {
        let input = &self.activation(id)?.input;
        let uri =
            self.with_scope(Some(id), None, |scope| endpoint.uri.expand(input, scope)).map_err(fault::expression)?;
        let text = |template: &Template| self.evaluate_body(id, template).map(|value| to_text(&value));
        let authentication = match &endpoint.authentication {
            None => None,
            Some(Policy::Basic(username, password)) => {
                Some(Authentication::Basic { username: text(username)?, password: text(password)? })
            }
            Some(Policy::Digest(username, password)) => {
                Some(Authentication::Digest { username: text(username)?, password: text(password)? })
            }
            Some(Policy::Bearer(token)) => Some(Authentication::Bearer { token: text(token)? }),
        };
        Ok((uri, authentication))
    }

    pub(super) fn evaluate_pairs(
        &self,
        id: ActivationId,
        pairs: Option<&Pairs>,
        what: &str,
    ) -> Result<Vec<(String, String)>, ErrorObject> {
        match pairs {
            None => Ok(Vec::new()),
            Some(Pairs::Entries(entries)) => {
                let evaluated = entries.iter().map(|(name, text)| Ok((name.clone(), self.evaluate_body(id, text)?)));
                evaluated.collect::<Result<Vec<_>, ErrorObject>>().map(texts)
            }
            Some(Pairs::Expression(template)) => {
                let value = self.evaluate_body(id, template)?;
                let members = value.as_members();
                let members = members
                    .ok_or_else(|| fault::expression(format!("`{what}` must give an object, not {}", value.kind())))?;
                Ok(texts(members.map(|(name, value)| (name.to_string(), value.clone())).collect()))
            }
        }
    }
}

/// Values as text; those that are `null` are left out.
fn texts(pairs: Vec<(String, Val)>) -> Vec<(String, String)> {
    let present = pairs.into_iter().filter(|(_, value)| !matches!(value, Val::Null));
    present.map(|(name, value)| (name, to_text(&value))).collect()
}
