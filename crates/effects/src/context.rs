//! What an effect is told about its surroundings, and what it reports back.

use fleet_core::{JobId, Timestamp};
use fleet_workflow::machine::command::EffectPath;
use fleet_workflow::machine::event::{ErrorObject, Outcome};
use tokio::sync::watch;

use crate::lease::Lease;

/// The surroundings of one effect.
#[derive(Clone, Debug)]
pub struct EffectContext {
    /// The job it belongs to.
    pub job_id: JobId,
    /// Name of the node that runs it.
    pub node_name: String,
    /// Where it stands in the job.
    pub path: EffectPath,
    /// Turns true when the effect is no longer wanted. Its sender may be dropped: then nobody cancels.
    pub cancelled: watch::Receiver<bool>,
    /// Wall time by which it must have ended; past it the outcome is a `timeout` error.
    pub deadline: Option<Timestamp>,
    /// How long this robot may act.
    pub lease: Lease,
}

impl EffectContext {
    /// The effect's key, the same on every re-run: `jobId/effect path`, in ASCII that fits a header as it is.
    pub fn key(&self) -> String {
        let mut key = format!("{}/", self.job_id);
        let path = self.path.0.strip_prefix('/').unwrap_or(&self.path.0);
        for byte in path.bytes() {
            match byte {
                b'!'..=b'~' => key.push(char::from(byte)),
                _ => key.push_str(&format!("%{byte:02X}")),
            }
        }
        key
    }
}

/// How an effect ended.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectReport {
    /// The outcome for the journal.
    pub outcome: Outcome,
    /// Last bytes of standard output, empty if it has none.
    pub stdout_tail: String,
    /// Last bytes of standard error, empty if it has none.
    pub stderr_tail: String,
    /// All of standard output up to the limit of a process; not for the journal.
    pub stdout: Vec<u8>,
    /// All of standard error, likewise.
    pub stderr: Vec<u8>,
    /// Set if it was not the effect that ended but its right to run: then `outcome` says nothing about the effect and
    /// does not belong in a journal.
    pub interrupted: Option<Interruption>,
}

/// Why an effect was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// It was cancelled.
    Cancelled,
    /// The lease ended, or had ended before it began.
    LeaseEnded,
}

impl EffectReport {
    /// A report of an effect without output streams.
    pub(crate) fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            stdout_tail: String::new(),
            stderr_tail: String::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            interrupted: None,
        }
    }

    /// The report of an effect that `interruption` stopped.
    pub(crate) fn interrupted(interruption: Interruption) -> Self {
        let detail = match interruption {
            Interruption::Cancelled => "the effect was cancelled",
            Interruption::LeaseEnded => "the robot's lease ended",
        };
        let error = ErrorObject::standard("runtime", 500, "interrupted", detail);
        Self { interrupted: Some(interruption), ..Self::of(Outcome::Err(error)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_header_safe_and_keeps_what_is_encoded_already() {
        let (_sender, cancelled) = watch::channel(false);
        let context = EffectContext {
            job_id: JobId::from_bytes([7; 16]),
            node_name: "a".to_owned(),
            path: EffectPath("/do/0/get%20it/é #1".to_owned()),
            cancelled,
            deadline: None,
            lease: Lease::unlimited(),
        };
        assert_eq!(context.key(), format!("{}/do/0/get%20it/%C3%A9%20#1", context.job_id));
    }
}
