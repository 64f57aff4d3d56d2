//! When a `try` is tried again.
//!
//! Decided where the language is silent: `count` counts retries, not tries. Before the n-th retry passes, constant: the
//! delay; linear: n times the delay; exponential: the delay, doubled each time (delay, 2 × delay, 4 × delay …). Jitter
//! is added on top; it comes from a hash of the job and the path, so a replay finds the same.

use super::super::event::ErrorObject;
use super::super::hash::hash;
use super::super::plan::{Builder, Delay};
use super::super::state::ActivationId;
use super::super::variables::Stage;
use super::super::{Machine, fault};
use crate::dsl::retry::{Backoff, RetryReference};
use crate::expr::Template;

/// A retry policy.
#[derive(Debug)]
pub(in super::super) struct Retry {
    when: Option<Template>,
    except_when: Option<Template>,
    delay: Option<Delay>,
    backoff: Backoff,
    count: Option<u32>,
    pub(super) attempt_duration: Option<Delay>,
    duration: Option<Delay>,
    jitter: Option<(Delay, Delay)>,
}

/// Doublings at most: far beyond any limit of time.
const DOUBLINGS_MAX: u32 = 32;

pub(super) fn compile(builder: &mut Builder<'_>, pointer: &str, reference: &RetryReference) -> Option<Retry> {
    let workflow = builder.workflow;
    let Some(policy) = workflow.retry_policy(reference) else {
        builder.error(pointer, "the retry policy is not in `use.retries`");
        return None;
    };
    let mut condition = |text: &Option<String>| match text {
        Some(text) => builder.expression(Stage::TaskBody, pointer, text).map(Some),
        None => Some(None),
    };
    let when = condition(&policy.when)?;
    let except_when = condition(&policy.except_when)?;
    let mut delay = |duration: &Option<crate::dsl::duration::Duration>| match duration {
        Some(duration) => builder.delay(Stage::TaskBody, pointer, duration).map(Some),
        None => Some(None),
    };
    let first = delay(&policy.delay)?;
    let attempt_duration = delay(&policy.limit.attempt_duration)?;
    let duration = delay(&policy.limit.duration)?;
    let jitter = match &policy.jitter {
        Some(jitter) => Some((
            builder.delay(Stage::TaskBody, pointer, &jitter.from)?,
            builder.delay(Stage::TaskBody, pointer, &jitter.to)?,
        )),
        None => None,
    };
    Some(Retry {
        when,
        except_when,
        delay: first,
        backoff: policy.backoff.unwrap_or(Backoff::Constant),
        count: policy.limit.attempt_count,
        attempt_duration,
        duration,
        jitter,
    })
}

/// The delay before the n-th retry, n from 1, without jitter.
fn backoff_ms(backoff: Backoff, delay_ms: u64, retry: u32) -> u64 {
    match backoff {
        Backoff::Constant => delay_ms,
        Backoff::Linear => delay_ms.saturating_mul(u64::from(retry)),
        Backoff::Exponential => delay_ms.saturating_mul(1 << retry.saturating_sub(1).min(DOUBLINGS_MAX)),
    }
}

impl Machine {
    /// The time of the next try; `None` if there is to be none.
    pub(super) fn next_attempt_ms(&self, id: ActivationId, retry: &Retry) -> Result<Option<u64>, ErrorObject> {
        let holds = |template: &Option<Template>| match template {
            Some(template) => self.evaluate_body(id, template).map(|value| Some(value.is_truthy())),
            None => Ok(None),
        };
        let Some(trial) = self.trial(id) else { return Ok(None) };
        let number = trial.attempt;
        if holds(&retry.when)? == Some(false)
            || holds(&retry.except_when)? == Some(true)
            || retry.count.is_some_and(|count| number > count)
        {
            return Ok(None);
        }
        let now_ms = self.state.now_ms;
        let length = |delay: &Option<Delay>| match delay {
            Some(delay) => self.due_ms(id, delay).map(|due_ms| due_ms.saturating_sub(now_ms)),
            None => Ok(0),
        };
        let delay_ms = backoff_ms(retry.backoff, length(&retry.delay)?, number);
        let jitter_ms = match &retry.jitter {
            Some((from, to)) => {
                let from_ms = self.due_ms(id, from)?.saturating_sub(now_ms);
                let to_ms = self.due_ms(id, to)?.saturating_sub(now_ms);
                let range = to_ms
                    .checked_sub(from_ms)
                    .ok_or_else(|| fault::configuration("`from` of the jitter is longer than `to`"))?;
                let path = self.activation(id)?.path.as_str();
                from_ms + hash(&[&self.context.job_id, path, &number.to_string()]) % range.saturating_add(1)
            }
            None => 0,
        };
        let due_ms = now_ms.saturating_add(delay_ms).saturating_add(jitter_ms);
        let too_late = match &retry.duration {
            Some(_) => due_ms.saturating_sub(trial.first_ms) > length(&retry.duration)?,
            None => false,
        };
        Ok((!too_late).then_some(due_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::backoff_ms;
    use crate::dsl::retry::Backoff;

    #[test]
    fn delays_grow_as_the_backoff_says() {
        let delays = |backoff| [1, 2, 3, 4].map(|retry| backoff_ms(backoff, 100, retry));
        assert_eq!(delays(Backoff::Constant), [100, 100, 100, 100]);
        assert_eq!(delays(Backoff::Linear), [100, 200, 300, 400]);
        assert_eq!(delays(Backoff::Exponential), [100, 200, 400, 800]);
        assert_eq!(backoff_ms(Backoff::Exponential, u64::MAX, 90), u64::MAX);
    }
}
