//! Hosts of HTTP calls: which one a URI names that stands in a definition, and which patterns match a host. Pure.
//!
//! Not a URI parser: [`literal`] knows a host only where no parser could read another one, and where it does not, whoever
//! sends judges the URI that is sent.

use std::net::Ipv4Addr;

/// The longest name that DNS knows, bytes.
const HOST_BYTES_MAX: usize = 253;

/// Whether `pattern` is `host`, or `*.suffix` and the host ends in `.suffix`, or `*`. Letter case does not count, nor do
/// the brackets of an IPv6 address.
pub fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => suffix.starts_with('.') && host.len() > suffix.len() && ends_with(host, suffix),
        None => without_brackets(host).eq_ignore_ascii_case(without_brackets(pattern)),
    }
}

fn ends_with(host: &str, suffix: &str) -> bool {
    host.get(host.len() - suffix.len()..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// Whether a URI of a definition is `http` or `https`, whatever its host.
pub fn is_http(uri: &str) -> bool {
    after_scheme(uri).is_some()
}

fn after_scheme(uri: &str) -> Option<&str> {
    uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://"))
}

/// The host that a URI of a definition names in plain letters, in lower case; `None` if part of it is yet to be evaluated,
/// or if it is spelled in a way that is read differently in different places.
pub fn literal(uri: &str) -> Option<String> {
    let rest = after_scheme(uri)?;
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let last = host.rsplit('.').next().unwrap_or_default();
    // Else it is a number, of which there are many spellings.
    let is_name = last.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_address = host.parse::<Ipv4Addr>().is_ok();
    let is_known = host.len() <= HOST_BYTES_MAX
        && host.chars().all(is_plain)
        && port.chars().all(|c| c.is_ascii_digit())
        && (is_name || is_address);
    is_known.then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, host, expected) in [
            ("*", "anything", true),
            ("api.example", "API.example", true),
            ("API.example", "api.example", true),
            ("api.example", "api.example.evil", false),
            ("api.example", "evil.api.example", false),
            ("*.example", "a.example", true),
            ("*.EXAMPLE", "a.b.example", true),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("*.example", "badexample", false),
            ("*.example", "é.exampl", false),
            ("*example", "badexample", false),
            ("::1", "[::1]", true),
            ("[::1]", "[::1]", true),
        ] {
            assert_eq!(matches(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn a_host_is_known_only_where_nobody_could_read_another() {
        for (uri, host) in [
            ("http://API.example/x", Some("api.example")),
            ("https://api.example:8443?q=1", Some("api.example")),
            ("https://api.example/{id}/${ .x }", Some("api.example")),
            ("http://localhost", Some("localhost")),
            ("http://127.0.0.1:80/", Some("127.0.0.1")),
            ("${ .url }", None),
            ("http://${ .host }/", None),
            ("http://{host}/", None),
            ("http://api.{domain}/", None),
            ("http://api.example:${ .port }/", None),
            ("http://user@good.example/", None),
            ("http://evil\\good.example/", None),
            ("http://ev\til/", None),
            ("http://good.example./", None),
            ("http://2130706433/", None),
            ("http://127.1/", None),
            ("http://0x7f.0.0.0x1/", None),
            ("http://[::1]/", None),
            ("http://bücher.example/", None),
            ("HTTP://api.example/", None),
            ("http:api.example", None),
            ("file:///etc/x", None),
            ("http://", None),
        ] {
            assert_eq!(literal(uri).as_deref(), host, "{uri}");
        }
    }
}
