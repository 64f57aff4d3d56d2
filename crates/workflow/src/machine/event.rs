//! What happened: the records of a job's journal, enough to replay it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command::EffectPath;

/// One fact of a job's history. Every event carries its wall time, the only time the machine knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// The first record: the first robot began the job.
    Started {
        /// When, milliseconds since the epoch.
        at_ms: u64,
    },
    /// An effect with `onLost: fail` is about to begin.
    EffectStarted {
        /// The effect's path.
        path: EffectPath,
        /// When, milliseconds since the epoch.
        at_ms: u64,
    },
    /// An effect ended.
    EffectEnded {
        /// The effect's path.
        path: EffectPath,
        /// When it began, milliseconds since the epoch.
        started_ms: u64,
        /// When it ended, milliseconds since the epoch.
        at_ms: u64,
        /// How it ended.
        outcome: Outcome,
        /// Last bytes of its standard output, empty if it has none.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        stdout_tail: String,
        /// Last bytes of its standard error, empty if it has none.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        stderr_tail: String,
    },
    /// The robot died while an effect with `onLost: fail` was in flight.
    EffectLost {
        /// The effect's path.
        path: EffectPath,
        /// When this was found, milliseconds since the epoch.
        at_ms: u64,
    },
    /// A timer's time has come.
    TimerFired {
        /// The timer's path.
        path: EffectPath,
        /// When, milliseconds since the epoch.
        at_ms: u64,
    },
    /// The interpreter itself took too long by the wall clock: the job fails.
    Overrun {
        /// When, milliseconds since the epoch.
        at_ms: u64,
    },
}

/// How an effect ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// With this result.
    Ok(Value),
    /// With this error; the machine fills in the instance.
    Err(ErrorObject),
}

/// An error of the language: RFC 7807 with the language's types.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// Type URI; [`ErrorObject::standard`] makes those of the language.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// HTTP-like status.
    pub status: u16,
    /// JSON pointer of the task that raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Short summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What happened this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Most bytes of one text of an error, such as its detail.
pub const ERROR_TEXT_BYTES_MAX: usize = 16 * 1024;

impl ErrorObject {
    /// Base of the language's type URIs, as this project emits them. Three other bases are in circulation and match as equal.
    pub const TYPE_BASE: &'static str = "https://serverlessworkflow.io/spec/1.0.0/errors/";

    /// An error of the language's standard type `slug` (such as `communication`).
    pub fn standard(slug: &str, status: u16, title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            type_uri: format!("{}{slug}", Self::TYPE_BASE),
            status,
            instance: None,
            title: Some(title.into()),
            detail: Some(detail.into()),
        }
    }

    /// The error of a job whose interpreter took too long ([`Event::Overrun`]).
    pub fn overrun() -> Self {
        let error = Self::standard("runtime", 500, "Runtime Error", "the interpreter took too long");
        Self { instance: Some("/".to_owned()), ..error }
    }

    /// The same error, each of its texts cut where it would be longer than [`ERROR_TEXT_BYTES_MAX`].
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let optional = [&mut self.instance, &mut self.title, &mut self.detail];
        for text in optional.into_iter().flatten().chain([&mut self.type_uri]) {
            if text.len() > ERROR_TEXT_BYTES_MAX {
                text.truncate(text.floor_char_boundary(ERROR_TEXT_BYTES_MAX));
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters_and_short_ones_are_left() {
        let detail = format!("x{}", "é".repeat(ERROR_TEXT_BYTES_MAX));
        let error = ErrorObject::standard("runtime", 500, "title", detail.clone()).bounded();
        let cut = error.detail.clone().expect("a detail");
        assert_eq!(cut.len(), ERROR_TEXT_BYTES_MAX - 1, "a character of two bytes does not fit in the last one");
        assert!(detail.starts_with(&cut));
        assert_eq!(error.clone().bounded(), error);
        assert_eq!(error.title.as_deref(), Some("title"));
    }
}
