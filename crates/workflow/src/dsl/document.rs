//! `document`: who and what a workflow is, and the settings of Fleet in its `metadata.fleet`.

use serde_json::{Map, Value};

use super::fields::Fields;
use super::reader::{Place, Reader};
use super::value::{integer, list, literal_object, text, word};
use crate::source::Content;

/// The head of a workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Version of the language.
    pub dsl: String,
    /// Namespace, a DNS label.
    pub namespace: String,
    /// Name, a DNS label.
    pub name: String,
    /// Version, a semantic version.
    pub version: String,
    /// Title for people.
    pub title: Option<String>,
    /// Summary in Markdown.
    pub summary: Option<String>,
    /// Tags of the workflow (not of robots).
    pub tags: Map<String, Value>,
    /// Anything, that of Fleet included.
    pub metadata: Map<String, Value>,
    /// The settings in `metadata.fleet`.
    pub fleet: FleetSettings,
}

/// `document.metadata.fleet`: where and how jobs of this workflow run. Other runtimes ignore it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetSettings {
    /// Tags that a robot must have.
    pub tags: Vec<String>,
    /// The site whose robots run it.
    pub site: Option<String>,
    /// 0 to 20, higher first.
    pub priority: Option<u8>,
    /// How often its robot may be lost before the job is given up.
    pub max_lost: Option<u32>,
    /// What a robot does with the job while it is cut off.
    pub on_disconnect: OnDisconnect,
    /// With `onDisconnect: finish`: for how long, seconds; an hour if it does not say.
    pub finish_within_seconds: Option<u32>,
}

/// What a robot does with a job while it is cut off from its leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It stops when its lease ends, and the job runs elsewhere.
    #[default]
    Stop,
    /// It runs on, for at most `finishWithinSeconds` since it last heard the leader.
    Finish,
}

/// Longest `finishWithinSeconds`: a day.
const MAX_FINISH_SECONDS: i64 = 24 * 60 * 60;

/// The named priorities.
const PRIORITIES: [(&str, u8); 4] = [("low", 5), ("normal", 10), ("high", 15), ("critical", 20)];

pub(super) fn read(place: &Place<'_>, reader: &mut Reader) -> Option<Document> {
    let what = "`document`";
    let mut fields = Fields::open(place, what, reader)?;
    let dsl = fields.required("dsl", reader, |place, reader| {
        let dsl = semantic_version(place, reader)?;
        if !dsl.starts_with("1.0.") {
            reader.cannot_run(place, format!("a workflow of DSL {dsl} (1.0.x is known)"));
        }
        Some(dsl)
    });
    let namespace = fields.required("namespace", reader, label);
    let name = fields.required("name", reader, label);
    let version = fields.required("version", reader, semantic_version);
    let title = fields.optional("title", reader, text);
    let summary = fields.optional("summary", reader, text);
    let tags = fields.optional("tags", reader, literal_object).unwrap_or_default();
    let metadata_place = fields.take("metadata");
    let metadata = metadata_place.as_ref().and_then(|place| literal_object(place, reader)).unwrap_or_default();
    let fleet = metadata_place
        .and_then(|place| fleet_place(&place))
        .and_then(|place| read_fleet(&place, reader))
        .unwrap_or_default();
    fields.finish(what, reader);
    Some(Document {
        dsl: dsl?,
        namespace: namespace?,
        name: name?,
        version: version?,
        title,
        summary,
        tags,
        metadata,
        fleet,
    })
}

/// The place of `fleet` in a `metadata` object.
pub(super) fn fleet_place<'a>(metadata: &Place<'a>) -> Option<Place<'a>> {
    let members = metadata.members()?;
    members.into_iter().find(|(member, _)| member.key == "fleet").map(|(_, place)| place)
}

fn read_fleet(place: &Place<'_>, reader: &mut Reader) -> Option<FleetSettings> {
    let what = "`metadata.fleet`";
    let mut fields = Fields::open(place, what, reader)?;
    let tags = fields.optional("tags", reader, |place, reader| list(place, reader, non_empty_text)).unwrap_or_default();
    let site = fields.optional("site", reader, label);
    let priority = fields.optional("priority", reader, priority);
    let max_lost = fields
        .optional("maxLost", reader, |place, reader| integer(place, reader, 0, i64::from(u32::MAX)))
        .and_then(|count| u32::try_from(count).ok());
    let on_disconnect = fields.optional("onDisconnect", reader, |place, reader| {
        word(place, reader, &[("stop", OnDisconnect::Stop), ("finish", OnDisconnect::Finish)])
    });
    let bound = fields.take("finishWithinSeconds");
    let finish_within_seconds = bound
        .as_ref()
        .and_then(|place| integer(place, reader, 1, MAX_FINISH_SECONDS))
        .and_then(|seconds| u32::try_from(seconds).ok());
    if let (None | Some(OnDisconnect::Stop), Some(place)) = (on_disconnect, &bound) {
        reader.problem(place, "`finishWithinSeconds` has a meaning only beside `onDisconnect: finish`");
    }
    fields.finish(what, reader);
    Some(FleetSettings {
        tags,
        site,
        priority,
        max_lost,
        on_disconnect: on_disconnect.unwrap_or_default(),
        finish_within_seconds,
    })
}

fn priority(place: &Place<'_>, reader: &mut Reader) -> Option<u8> {
    match &place.node.content {
        Content::Text(_) => word(place, reader, &PRIORITIES),
        _ => integer(place, reader, 0, 20).and_then(|priority| u8::try_from(priority).ok()),
    }
}

fn non_empty_text(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let text = text(place, reader)?;
    if text.is_empty() {
        reader.problem(place, "must not be empty");
        return None;
    }
    Some(text)
}

/// A DNS label: letters, digits and inner hyphens, at most 63.
fn label(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let text = text(place, reader)?;
    if is_label(&text) {
        return Some(text);
    }
    reader.problem(
        place,
        format!("`{text}` is not a DNS label: 1 to 63 letters, digits and hyphens, no hyphen first or last"),
    );
    None
}

fn is_label(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(|byte| plain(byte) || *byte == b'-')
}

fn semantic_version(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let text = text(place, reader)?;
    if is_semantic_version(&text) {
        return Some(text);
    }
    reader.problem(place, format!("`{text}` is not a semantic version such as 1.0.0"));
    None
}

/// Whether a text is a version by Semantic Versioning 2.0.0.
pub fn is_semantic_version(text: &str) -> bool {
    let (rest, build) = split_optional(text, '+');
    let (core, prerelease) = split_optional(rest, '-');
    let number = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let identifier =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    core.split('.').count() == 3
        && core.split('.').all(number)
        && prerelease.is_none_or(|list| list.split('.').all(|p| identifier(p) && (!all_digits(p) || number(p))))
        && build.is_none_or(|list| list.split('.').all(identifier))
}

fn split_optional(text: &str, separator: char) -> (&str, Option<&str>) {
    match text.split_once(separator) {
        Some((left, right)) => (left, Some(right)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_label, is_semantic_version};

    #[test]
    fn labels_and_versions() {
        for (text, expected) in
            [("a", true), ("a-b", true), ("-a", false), ("a-", false), ("", false), ("a_b", false), ("a.b", false)]
        {
            assert_eq!(is_label(text), expected, "{text}");
        }
        assert!(is_label(&"a".repeat(63)) && !is_label(&"a".repeat(64)));
        for (text, expected) in [
            ("1.0.0", true),
            ("0.1.0-alpha.1+build.5", true),
            ("1.0.0+a-b", true),
            ("1.0.0-0a", true),
            ("01.0.0", false),
            ("1.0", false),
            ("1.0.0-01", false),
            ("1.0.0-", false),
            ("1.0.0+", false),
            ("v1.0.0", false),
            ("1.0.0 ", false),
        ] {
            assert_eq!(is_semantic_version(text), expected, "{text}");
        }
    }
}
