//! Which hosts a robot may send to (`robot.allow.http`), and the refusal. Pure.
//!
//! Not a parser: it judges the very [`Url`] that is sent, never the author's text. Names are compared as that URL spells
//! them: internationalised names in their ASCII form, IPv4 addresses with four decimal numbers. What a name resolves to
//! is not judged.
//!
//! Invariants: without a pattern, nothing is allowed; a URL without a host is refused, whatever the patterns.

use std::error::Error;

use fleet_workflow::hosts;
use fleet_workflow::machine::event::ErrorObject;
use reqwest::Url;

/// A robot may not send to this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this robot may not call {host}: see `robot.allow.http` in its configuration")]
pub(crate) struct Refusal {
    host: String,
}

impl Refusal {
    /// The refusal in the language's terms.
    pub(crate) fn to_error_object(&self) -> ErrorObject {
        ErrorObject::standard("authorization", 403, "host not allowed", self.to_string())
    }

    /// The refusal of a redirect, if that is why `error` came to be.
    pub(crate) fn behind(error: &reqwest::Error) -> Option<&Self> {
        std::iter::successors(error.source(), |source| (**source).source()).find_map(|source| source.downcast_ref())
    }
}

/// Refuses `url` unless one of `patterns` allows its host.
pub(crate) fn check(patterns: &[String], url: &Url) -> Result<(), Refusal> {
    match url.host_str() {
        Some(host) if host_allowed(patterns, host) => Ok(()),
        Some(host) => Err(Refusal { host: host.to_owned() }),
        None => Err(Refusal { host: "a URI without a host".to_owned() }),
    }
}

/// Whether one of `patterns` allows `host`.
fn host_allowed(patterns: &[String], host: &str) -> bool {
    patterns.iter().any(|pattern| hosts::matches(pattern, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_host_needs_a_pattern() {
        assert!(!host_allowed(&[], "a.example"), "no pattern, no host");
        assert!(host_allowed(&patterns(&["a.example", "b.example"]), "b.example"));
    }

    #[test]
    fn a_host_known_from_a_definition_is_the_one_sent_to() {
        for uri in ["http://API.example/x", "https://api.example:8443?q=1", "http://localhost", "http://127.0.0.1:80/"]
        {
            let sent_to = Url::parse(uri).unwrap();
            assert_eq!(hosts::literal(uri).as_deref(), sent_to.host_str(), "{uri}");
        }
    }

    #[test]
    fn the_host_judged_is_the_one_sent_to() {
        let allowed = patterns(&["good.example", "127.0.0.1", "::1"]);
        for (uri, refused) in [
            ("http://good.example/x", None),
            ("https://user:secret@GOOD.example:8443?q", None),
            ("http:good.example", None),
            ("http://2130706433/", None),
            ("http://[0:0:0:0:0:0:0:1]:80/", None),
            (r"http://evil\@good.example/", Some("evil")),
            ("http:evil", Some("evil")),
            ("http:/evil", Some("evil")),
            ("http:\\\\evil\\good.example", Some("evil")),
            ("http://good.example@evil/", Some("evil")),
            ("http://evil#@good.example/", Some("evil")),
            ("http://evil?@good.example/", Some("evil")),
            ("ht\ntp://ev\til/", Some("evil")),
            ("http://good.example./", Some("good.example.")),
            ("http://good%2Eexample.evil/", Some("good.example.evil")),
            ("mailto:someone@good.example", Some("a URI without a host")),
        ] {
            let result = check(&allowed, &Url::parse(uri).unwrap());
            let expected = refused.map_or(Ok(()), |host| Err(Refusal { host: host.to_owned() }));
            assert_eq!(result, expected, "{uri}");
        }
        assert!(check(&patterns(&["*"]), &Url::parse("file:///x").unwrap()).is_err(), "no host is never allowed");
    }

    #[test]
    fn a_refusal_names_the_host_and_the_setting() {
        let error = check(&[], &Url::parse("http://evil/").unwrap()).unwrap_err().to_error_object();
        assert_eq!((error.status, error.type_uri.ends_with("/authorization")), (403, true));
        let detail = error.detail.unwrap();
        assert!(detail.contains("evil") && detail.contains("robot.allow.http"), "{detail}");
    }
}
