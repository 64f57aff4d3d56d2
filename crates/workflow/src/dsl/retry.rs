//! Retry policies.

use super::duration::{self, Duration};
use super::fields::Fields;
use super::reader::{Component, Place, Reader};
use super::value::{expression, integer};

/// A retry policy, in place or by name.
#[derive(Clone, Debug, PartialEq)]
pub enum RetryReference {
    /// In place.
    Inline(RetryPolicy),
    /// By its name in `use.retries`.
    Named(String),
}

/// When and how often to try again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetryPolicy {
    /// Expression that must be true.
    pub when: Option<String>,
    /// Expression that must not be true.
    pub except_when: Option<String>,
    /// Time between two tries.
    pub delay: Option<Duration>,
    /// How the delay grows; constant if absent.
    pub backoff: Option<Backoff>,
    /// When to give up.
    pub limit: RetryLimit,
    /// Random addition to the delay.
    pub jitter: Option<Jitter>,
}

/// How the delay between tries grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// Not at all.
    Constant,
    /// By the delay each time.
    Linear,
    /// Twofold each time.
    Exponential,
}

/// When to give up trying.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetryLimit {
    /// Most retries (`attempt.count`).
    pub attempt_count: Option<u32>,
    /// Most time for one try (`attempt.duration`).
    pub attempt_duration: Option<Duration>,
    /// Most time for all tries.
    pub duration: Option<Duration>,
}

/// Bounds of the random addition.
#[derive(Clone, Debug, PartialEq)]
pub struct Jitter {
    /// Least.
    pub from: Duration,
    /// Most.
    pub to: Duration,
}

/// A policy in place, or the name of one.
pub(super) fn read_reference(place: &Place<'_>, reader: &mut Reader) -> Option<RetryReference> {
    if let Some(name) = place.as_text() {
        reader.reference(Component::Retry, place, name);
        return Some(RetryReference::Named(name.to_owned()));
    }
    read_policy(place, reader).map(RetryReference::Inline)
}

pub(super) fn read_policy(place: &Place<'_>, reader: &mut Reader) -> Option<RetryPolicy> {
    let what = "a retry policy";
    let mut fields = Fields::open(place, what, reader)?;
    let policy = RetryPolicy {
        when: fields.optional("when", reader, expression),
        except_when: fields.optional("exceptWhen", reader, expression),
        delay: fields.optional("delay", reader, duration::read),
        backoff: fields.optional("backoff", reader, read_backoff),
        limit: fields.optional("limit", reader, read_limit).unwrap_or_default(),
        jitter: fields.optional("jitter", reader, read_jitter),
    };
    fields.finish(what, reader);
    Some(policy)
}

fn read_backoff(place: &Place<'_>, reader: &mut Reader) -> Option<Backoff> {
    let what = "a backoff";
    let mut fields = Fields::open(place, what, reader)?;
    let chosen = fields.exactly_one(&["constant", "linear", "exponential"], what, reader);
    fields.finish(what, reader);
    let (key, settings) = chosen?;
    Fields::open(&settings, "the settings of a backoff", reader)?.finish("the settings of a backoff", reader);
    Some(match key {
        "constant" => Backoff::Constant,
        "linear" => Backoff::Linear,
        _ => Backoff::Exponential,
    })
}

fn read_limit(place: &Place<'_>, reader: &mut Reader) -> Option<RetryLimit> {
    let what = "a retry limit";
    let mut fields = Fields::open(place, what, reader)?;
    let attempt = fields.optional("attempt", reader, read_attempt);
    let duration = fields.optional("duration", reader, duration::read);
    fields.finish(what, reader);
    let (attempt_count, attempt_duration) = attempt.unwrap_or_default();
    Some(RetryLimit { attempt_count, attempt_duration, duration })
}

fn read_attempt(place: &Place<'_>, reader: &mut Reader) -> Option<(Option<u32>, Option<Duration>)> {
    let what = "the limit of attempts";
    let mut fields = Fields::open(place, what, reader)?;
    let count = fields
        .optional("count", reader, |place, reader| integer(place, reader, 0, i64::from(u32::MAX)))
        .and_then(|count| u32::try_from(count).ok());
    let duration = fields.optional("duration", reader, duration::read);
    fields.finish(what, reader);
    Some((count, duration))
}

fn read_jitter(place: &Place<'_>, reader: &mut Reader) -> Option<Jitter> {
    let what = "a jitter";
    let mut fields = Fields::open(place, what, reader)?;
    let from = fields.required("from", reader, duration::read);
    let to = fields.required("to", reader, duration::read);
    fields.finish(what, reader);
    let (from, to) = (from?, to?);
    if let (Duration::Fixed(least), Duration::Fixed(most)) = (&from, &to)
        && (least.months, least.milliseconds) > (most.months, most.milliseconds)
    {
        reader.problem(place, "`from` of a jitter must not be longer than `to`");
    }
    Some(Jitter { from, to })
}
