//! Authentication policies.

use super::fields::Fields;
use super::reader::{Component, Place, Reader};
use super::resource::{check_template, read_literal_uri};
use super::value::{list, template, text, word};

/// A policy, or the name of one in `use.authentications`.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthenticationReference {
    /// In place.
    Inline(AuthenticationPolicy),
    /// By name.
    Named(String),
}

/// How to authenticate.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthenticationPolicy {
    /// RFC 7617.
    Basic(Credentials),
    /// RFC 6750; a literal or an expression.
    Bearer(BearerToken),
    /// RFC 7616.
    Digest(Credentials),
    /// OAuth 2.0.
    OAuth2(OAuth2Policy),
    /// OpenID Connect.
    Oidc(OAuth2Policy),
}

/// User name and password, or the secret that holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Literals or expressions.
    Inline {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// The name of a secret.
    Secret(String),
}

/// A bearer token, or the secret that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BearerToken {
    /// A literal or an expression.
    Inline(String),
    /// The name of a secret.
    Secret(String),
}

/// OAuth 2.0 or OpenID Connect, or the secret that holds their settings.
#[derive(Clone, Debug, PartialEq)]
pub enum OAuth2Policy {
    /// In place.
    Inline(Box<OAuth2Properties>),
    /// The name of a secret.
    Secret(String),
}

/// The settings of an OAuth 2.0 or OpenID Connect policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OAuth2Properties {
    /// URI template of the authority.
    pub authority: Option<String>,
    /// Grant type.
    pub grant: Option<String>,
    /// The client.
    pub client: Option<OAuth2Client>,
    /// Encoding of the token request.
    pub request_encoding: Option<String>,
    /// Accepted issuers.
    pub issuers: Vec<String>,
    /// Scopes.
    pub scopes: Vec<String>,
    /// Audiences.
    pub audiences: Vec<String>,
    /// User name, for the grant `password`.
    pub username: Option<String>,
    /// Password, for the grant `password`.
    pub password: Option<String>,
    /// On whose behalf.
    pub subject: Option<OAuth2Token>,
    /// Who acts.
    pub actor: Option<OAuth2Token>,
    /// Paths of the endpoints; OAuth 2.0 only.
    pub endpoints: OAuth2Endpoints,
}

/// The client of a token request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OAuth2Client {
    /// Client id.
    pub id: Option<String>,
    /// Client secret.
    pub secret: Option<String>,
    /// Signed assertion.
    pub assertion: Option<String>,
    /// How the client authenticates.
    pub authentication: Option<String>,
}

/// A security token and its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth2Token {
    /// The token.
    pub token: String,
    /// Its type.
    pub kind: String,
}

/// Paths below the authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OAuth2Endpoints {
    /// Of tokens.
    pub token: Option<String>,
    /// Of revocation.
    pub revocation: Option<String>,
    /// Of introspection.
    pub introspection: Option<String>,
}

const KINDS: [&str; 5] = ["basic", "bearer", "digest", "oauth2", "oidc"];
const GRANTS: [&str; 5] = [
    "authorization_code",
    "client_credentials",
    "password",
    "refresh_token",
    "urn:ietf:params:oauth:grant-type:token-exchange",
];
const CLIENT_AUTHENTICATIONS: [&str; 5] =
    ["client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "none"];
const ENCODINGS: [&str; 2] = ["application/x-www-form-urlencoded", "application/json"];

/// A policy in place, or `{use: NAME}`.
pub(super) fn read_reference(place: &Place<'_>, reader: &mut Reader) -> Option<AuthenticationReference> {
    let what = "an authentication policy";
    let mut fields = Fields::open(place, what, reader)?;
    let chosen = fields.exactly_one(&["use", KINDS[0], KINDS[1], KINDS[2], KINDS[3], KINDS[4]], what, reader);
    fields.finish(what, reader);
    let (key, place) = chosen?;
    if key == "use" {
        let name = name(&place, reader)?;
        reader.reference(Component::Authentication, &place, &name);
        return Some(AuthenticationReference::Named(name));
    }
    read_kind(key, &place, reader).map(AuthenticationReference::Inline)
}

/// A policy in place.
pub(super) fn read_policy(place: &Place<'_>, reader: &mut Reader) -> Option<AuthenticationPolicy> {
    let what = "an authentication policy";
    let mut fields = Fields::open(place, what, reader)?;
    let chosen = fields.exactly_one(&KINDS, what, reader);
    fields.finish(what, reader);
    let (key, place) = chosen?;
    read_kind(key, &place, reader)
}

fn read_kind(key: &str, place: &Place<'_>, reader: &mut Reader) -> Option<AuthenticationPolicy> {
    match key {
        "basic" => read_credentials(place, reader).map(AuthenticationPolicy::Basic),
        "digest" => read_credentials(place, reader).map(AuthenticationPolicy::Digest),
        "bearer" => read_bearer(place, reader).map(AuthenticationPolicy::Bearer),
        "oauth2" => {
            reader.cannot_run(place, "authentication by oauth2");
            read_oauth2(place, true, reader).map(AuthenticationPolicy::OAuth2)
        }
        _ => {
            reader.cannot_run(place, "authentication by oidc");
            read_oauth2(place, false, reader).map(AuthenticationPolicy::Oidc)
        }
    }
}

/// A name that is not empty.
fn name(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let name = text(place, reader)?;
    if name.is_empty() {
        reader.problem(place, "must not be empty");
        return None;
    }
    Some(name)
}

/// The name of a secret in `{use: NAME}`, which must be the only key.
fn read_secret(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<String> {
    let place = fields.take("use")?;
    let name = name(&place, reader)?;
    reader.reference(Component::Secret, &place, &name);
    reader.cannot_run(&place, "authentication from a secret");
    Some(name)
}

fn read_credentials(place: &Place<'_>, reader: &mut Reader) -> Option<Credentials> {
    let what = "credentials";
    let mut fields = Fields::open(place, what, reader)?;
    if fields.has("use") {
        let secret = read_secret(&mut fields, reader);
        fields.finish("credentials from a secret", reader);
        return secret.map(Credentials::Secret);
    }
    let username = fields.required("username", reader, template);
    let password = fields.required("password", reader, template);
    fields.finish(what, reader);
    Some(Credentials::Inline { username: username?, password: password? })
}

fn read_bearer(place: &Place<'_>, reader: &mut Reader) -> Option<BearerToken> {
    let what = "a bearer token";
    let mut fields = Fields::open(place, what, reader)?;
    if fields.has("use") {
        let secret = read_secret(&mut fields, reader);
        fields.finish("a bearer token from a secret", reader);
        return secret.map(BearerToken::Secret);
    }
    let token = fields.required("token", reader, template);
    fields.finish(what, reader);
    token.map(BearerToken::Inline)
}

fn read_oauth2(place: &Place<'_>, with_endpoints: bool, reader: &mut Reader) -> Option<OAuth2Policy> {
    let what = "the settings of oauth2 or oidc";
    let mut fields = Fields::open(place, what, reader)?;
    if fields.has("use") {
        let secret = read_secret(&mut fields, reader);
        fields.finish("settings from a secret", reader);
        return secret.map(OAuth2Policy::Secret);
    }
    let properties = OAuth2Properties {
        authority: fields.optional("authority", reader, read_literal_uri),
        grant: fields.optional("grant", reader, |place, reader| one_of(place, reader, &GRANTS)),
        client: fields.optional("client", reader, read_client),
        request_encoding: fields.optional("request", reader, read_request).flatten(),
        issuers: fields.optional("issuers", reader, texts).unwrap_or_default(),
        scopes: fields.optional("scopes", reader, texts).unwrap_or_default(),
        audiences: fields.optional("audiences", reader, texts).unwrap_or_default(),
        username: fields.optional("username", reader, template),
        password: fields.optional("password", reader, template),
        subject: fields.optional("subject", reader, read_token),
        actor: fields.optional("actor", reader, read_token),
        endpoints: if with_endpoints {
            fields.optional("endpoints", reader, read_endpoints).unwrap_or_default()
        } else {
            OAuth2Endpoints::default()
        },
    };
    fields.finish(what, reader);
    Some(OAuth2Policy::Inline(Box::new(properties)))
}

fn texts(place: &Place<'_>, reader: &mut Reader) -> Option<Vec<String>> {
    list(place, reader, template)
}

fn one_of(place: &Place<'_>, reader: &mut Reader, words: &[&'static str]) -> Option<String> {
    let pairs: Vec<(&'static str, &'static str)> = words.iter().map(|word| (*word, *word)).collect();
    word(place, reader, &pairs).map(str::to_owned)
}

fn read_client(place: &Place<'_>, reader: &mut Reader) -> Option<OAuth2Client> {
    let what = "a client";
    let mut fields = Fields::open(place, what, reader)?;
    let client = OAuth2Client {
        id: fields.optional("id", reader, template),
        secret: fields.optional("secret", reader, template),
        assertion: fields.optional("assertion", reader, template),
        authentication: fields
            .optional("authentication", reader, |place, reader| one_of(place, reader, &CLIENT_AUTHENTICATIONS)),
    };
    fields.finish(what, reader);
    Some(client)
}

fn read_request(place: &Place<'_>, reader: &mut Reader) -> Option<Option<String>> {
    let what = "a token request";
    let mut fields = Fields::open(place, what, reader)?;
    let encoding = fields.optional("encoding", reader, |place, reader| one_of(place, reader, &ENCODINGS));
    fields.finish(what, reader);
    Some(encoding)
}

fn read_token(place: &Place<'_>, reader: &mut Reader) -> Option<OAuth2Token> {
    let what = "a security token";
    let mut fields = Fields::open(place, what, reader)?;
    let token = fields.required("token", reader, template);
    let kind = fields.required("type", reader, template);
    fields.finish(what, reader);
    Some(OAuth2Token { token: token?, kind: kind? })
}

fn read_endpoints(place: &Place<'_>, reader: &mut Reader) -> Option<OAuth2Endpoints> {
    let what = "the endpoints of oauth2";
    let mut fields = Fields::open(place, what, reader)?;
    let endpoints = OAuth2Endpoints {
        token: fields.optional("token", reader, path),
        revocation: fields.optional("revocation", reader, path),
        introspection: fields.optional("introspection", reader, path),
    };
    fields.finish(what, reader);
    Some(endpoints)
}

/// A path or URI, or a template of one.
fn path(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let text = text(place, reader)?;
    match check_template(&text) {
        Ok(()) => Some(text),
        Err(why) => {
            reader.problem(place, format!("`{text}` is not a path: {why}"));
            None
        }
    }
}
