//! HTTP digest access authentication (RFC 7616): a server's challenge in, an `Authorization` header out. Pure.
//!
//! Supports MD5 and SHA-256 with their `-sess` forms, with `qop=auth` or none. Not supported: `auth-int`, `userhash`.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use fleet_workflow::machine::event::ErrorObject;
use md5::{Digest, Md5};
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::request::Prepared;

/// User name and password.
pub(crate) struct Credentials<'a> {
    /// User name.
    pub(crate) username: &'a str,
    /// Password.
    pub(crate) password: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Hash {
    Md5,
    Sha256,
}

/// What the server asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    /// The server's own word for the algorithm, to be echoed.
    algorithm: Option<String>,
    hash: Hash,
    session: bool,
    with_qop: bool,
}

/// Sixteen random bytes in hexadecimal.
pub(crate) fn client_nonce() -> Result<String, ErrorObject> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| ErrorObject::standard("runtime", 500, "no randomness", "the system gave no random bytes"))?;
    Ok(hexadecimal(&bytes))
}

/// The header that answers the strongest digest challenge in `headers`; `None` if there is none we can answer.
pub(crate) fn answer(
    headers: &HeaderMap,
    credentials: &Credentials<'_>,
    prepared: &Prepared,
    client_nonce: &str,
) -> Option<HeaderValue> {
    let challenge = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenges)
        .max_by_key(|challenge| challenge.hash)?;
    let uri = match prepared.url.query() {
        Some(query) => format!("{}?{query}", prepared.url.path()),
        None => prepared.url.path().to_owned(),
    };
    let text = authorization(&challenge, credentials, prepared.method.as_str(), &uri, client_nonce);
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn authorization(
    challenge: &Challenge,
    credentials: &Credentials<'_>,
    method: &str,
    uri: &str,
    client_nonce: &str,
) -> String {
    let hash = |text: String| hash_hexadecimal(challenge.hash, &text);
    let Challenge { realm, nonce, .. } = challenge;
    let mut user_hash = hash(format!("{}:{realm}:{}", credentials.username, credentials.password));
    if challenge.session {
        user_hash = hash(format!("{user_hash}:{nonce}:{client_nonce}"));
    }
    let request_hash = hash(format!("{method}:{uri}"));
    let response = if challenge.with_qop {
        hash(format!("{user_hash}:{nonce}:00000001:{client_nonce}:auth:{request_hash}"))
    } else {
        hash(format!("{user_hash}:{nonce}:{request_hash}"))
    };
    let mut header = format!(
        "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\"",
        quoted(credentials.username),
        quoted(realm),
        quoted(nonce),
        quoted(uri),
    );
    if let Some(algorithm) = &challenge.algorithm {
        header.push_str(&format!(", algorithm={algorithm}"));
    }
    if let Some(opaque) = &challenge.opaque {
        header.push_str(&format!(", opaque={}", quoted(opaque)));
    }
    if challenge.with_qop {
        header.push_str(&format!(", qop=auth, nc=00000001, cnonce=\"{client_nonce}\""));
    } else if challenge.session {
        header.push_str(&format!(", cnonce=\"{client_nonce}\""));
    }
    header
}

/// The digest challenges of one header value that we can answer.
fn challenges(value: &str) -> Vec<Challenge> {
    let mut found: Vec<Vec<(String, String)>> = Vec::new();
    let mut in_digest = false;
    for part in split_outside_quotes(value) {
        let mut part = part.trim();
        // A challenge begins with its scheme and a space; a parameter has no space before its `=`.
        let name_end = part.find('=').unwrap_or(part.len());
        if let Some(space) = part[..name_end].trim_end().find(' ') {
            in_digest = part[..space].eq_ignore_ascii_case("digest");
            if in_digest {
                found.push(Vec::new());
            }
            part = part[space..].trim_start();
        } else if name_end == part.len() {
            in_digest = false;
        }
        if let (true, Some((name, text)), Some(parameters)) = (in_digest, part.split_once('='), found.last_mut()) {
            parameters.push((name.trim().to_ascii_lowercase(), unquoted(text.trim())));
        }
    }
    found.iter().filter_map(|parameters| challenge(parameters)).collect()
}

fn challenge(parameters: &[(String, String)]) -> Option<Challenge> {
    let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let algorithm = get("algorithm");
    let word = algorithm.as_deref().unwrap_or("MD5").to_ascii_lowercase();
    let (word, session) = match word.strip_suffix("-sess") {
        Some(word) => (word, true),
        None => (word.as_str(), false),
    };
    let hash = match word {
        "md5" => Hash::Md5,
        "sha-256" => Hash::Sha256,
        _ => return None,
    };
    let with_qop = match get("qop") {
        Some(qop) if qop.split(',').any(|one| one.trim().eq_ignore_ascii_case("auth")) => true,
        Some(_) => return None,
        None => false,
    };
    Some(Challenge {
        realm: get("realm")?,
        nonce: get("nonce")?,
        opaque: get("opaque"),
        algorithm,
        hash,
        session,
        with_qop,
    })
}

/// The parts of `text` between commas that stand outside quotation marks.
fn split_outside_quotes(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (position, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else { return text.to_owned() };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    plain
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn hash_hexadecimal(hash: Hash, text: &str) -> String {
    match hash {
        Hash::Md5 => hexadecimal(&Md5::digest(text.as_bytes())),
        Hash::Sha256 => hexadecimal(digest(&SHA256, text.as_bytes()).as_ref()),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7616 §3.9.1.
    const RFC_HEADER: &str = r#"Basic realm="a, b", Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256,
        nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
        Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=MD5,
        nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#;

    #[test]
    fn the_examples_of_the_standard() {
        let found = challenges(RFC_HEADER);
        assert_eq!(found.len(), 2);
        let credentials = Credentials { username: "Mufasa", password: "Circle of Life" };
        let client_nonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        for (challenge, response) in found.iter().zip([
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            "8ca523f5e9506fed4657c9700eebdbec",
        ]) {
            let header = authorization(challenge, &credentials, "GET", "/dir/index.html", client_nonce);
            assert!(header.contains(&format!("response=\"{response}\"")), "{header}");
            assert!(header.contains("qop=auth, nc=00000001") && header.contains("opaque=\"FQhe/"));
        }
    }

    #[test]
    fn challenges_without_qop_or_with_unknown_words() {
        assert!(!challenges(r#"Digest realm="r", nonce="n""#)[0].with_qop);
        assert!(challenges(r#"Digest realm="r", nonce="n", algorithm=SHA-512-256"#).is_empty());
        assert!(challenges(r#"Digest realm="r", nonce="n", qop="auth-int""#).is_empty());
        assert!(challenges("Negotiate, Bearer realm=\"x\"").is_empty());
        assert!(challenges("Digest").is_empty());
        assert_eq!(challenges(r#"Digest realm="a\"b", nonce=n, algorithm=MD5-sess"#)[0].realm, "a\"b");
    }
}
