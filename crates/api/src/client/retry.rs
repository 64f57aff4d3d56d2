//! Where and when a call is tried again: a pure state machine. It sees outcomes and how much time is left, and says what
//! to do; it sends nothing, waits for nothing and rolls no dice.
//!
//! Invariants: no try begins after the deadline; a call that must not be repeated is tried again only if it surely had no
//! effect; hints are followed a bounded number of times before the next wait.

use std::time::Duration;

use fleet_core::ErrorKind;

/// The first wait after every endpoint failed.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest wait of our own making.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Hints followed one after the other without a wait.
const HINT_HOPS_MAX: u32 = 3;
/// Tries of one call, whatever its deadline.
const TRIES_MAX: u32 = 64;

/// Whether a call may be sent again when the outcome of the first sending is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Sending it twice does what sending it once does.
    Safe,
    /// Each sending counts.
    OnlyIfRefused,
}

/// How far a failed try came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// No connection: the call was not sent.
    NotSent,
    /// It was sent; the error says whether it was refused.
    Sent,
}

/// A failed try.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) reach: Reach,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) leader_hint: Option<String>,
}

/// What to do after a failed try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try the address after the wait.
    Try { address: String, after: Duration },
    /// The failure is the answer.
    GiveUp,
}

/// The course of one call over the endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    endpoints: Vec<String>,
    position: usize,
    failed_in_round: usize,
    rounds: u32,
    hops: u32,
    tries: u32,
    repeat: Repeat,
}

impl Course {
    /// A call over `endpoints` (not empty), beginning with the one at `position`.
    pub(crate) fn new(endpoints: Vec<String>, position: usize, repeat: Repeat) -> Self {
        Self { endpoints, position, failed_in_round: 0, rounds: 0, hops: 0, tries: 1, repeat }
    }

    /// Where the first try goes; nowhere without endpoints.
    pub(crate) fn first(&self) -> Option<String> {
        self.endpoint()
    }

    /// The endpoint in turn, to begin with at the next call.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// What follows `failure`, with `left` of the deadline and `jitter` in 0..=1.
    pub(crate) fn after(&mut self, failure: &Failure, left: Duration, jitter: f64) -> Next {
        if !self.may_try_again(failure) || self.tries >= TRIES_MAX {
            return Next::GiveUp;
        }
        self.tries += 1;
        if let Some(hint) = self.hint(failure) {
            self.hops += 1;
            return Next::Try { address: hint, after: Duration::ZERO };
        }
        self.hops = 0;
        self.position = (self.position + 1) % self.endpoints.len().max(1);
        self.failed_in_round += 1;
        let mut after = Duration::ZERO;
        if self.failed_in_round >= self.endpoints.len() {
            self.failed_in_round = 0;
            after = backoff(self.rounds, jitter);
            self.rounds += 1;
        }
        if let Some(asked) = failure.retry_after {
            // The node knows better than our own growing wait how soon it is worth asking again.
            after = asked.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 2.0);
        }
        match self.endpoint() {
            Some(address) if after < left => Next::Try { address, after },
            _ => Next::GiveUp,
        }
    }

    fn may_try_again(&self, failure: &Failure) -> bool {
        let outcome_unknown = failure.reach == Reach::Sent
            && matches!(failure.kind, ErrorKind::Unavailable | ErrorKind::DeadlineExceeded);
        failure.kind.is_retryable() && !(outcome_unknown && self.repeat == Repeat::OnlyIfRefused)
    }

    fn hint(&self, failure: &Failure) -> Option<String> {
        let hint = failure.leader_hint.clone().filter(|_| failure.kind == ErrorKind::NotLeader)?;
        (self.hops < HINT_HOPS_MAX).then_some(hint)
    }

    fn endpoint(&self) -> Option<String> {
        self.endpoints.get(self.position).cloned()
    }
}

/// The wait after `round` rounds: doubling, bounded, and spread between half and all of it.
pub(crate) fn backoff(round: u32, jitter: f64) -> Duration {
    let whole = BACKOFF_MIN.saturating_mul(1 << round.min(16)).min(BACKOFF_MAX);
    whole.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: Duration = Duration::from_secs(10);

    fn course(repeat: Repeat) -> Course {
        Course::new(vec!["a:1".to_owned(), "b:2".to_owned()], 0, repeat)
    }

    fn failure(kind: ErrorKind, reach: Reach) -> Failure {
        Failure { kind, reach, retry_after: None, leader_hint: None }
    }

    fn try_at(next: Next) -> (String, Duration) {
        match next {
            Next::Try { address, after } => (address, after),
            Next::GiveUp => panic!("expected another try"),
        }
    }

    #[test]
    fn only_retryable_kinds_are_tried_again() {
        for kind in ErrorKind::ALL {
            let next = course(Repeat::Safe).after(&failure(kind, Reach::Sent), LEFT, 0.5);
            assert_eq!(matches!(next, Next::Try { .. }), kind.is_retryable(), "{kind}");
        }
    }

    #[test]
    fn what_must_not_be_repeated_is_tried_again_only_if_it_had_no_effect() {
        for (kind, reach, again) in [
            (ErrorKind::Unavailable, Reach::NotSent, true),
            (ErrorKind::Unavailable, Reach::Sent, false),
            (ErrorKind::DeadlineExceeded, Reach::Sent, false),
            (ErrorKind::NotLeader, Reach::Sent, true),
            (ErrorKind::ResourceExhausted, Reach::Sent, true),
        ] {
            let next = course(Repeat::OnlyIfRefused).after(&failure(kind, reach), LEFT, 0.5);
            assert_eq!(matches!(next, Next::Try { .. }), again, "{kind} {reach:?}");
        }
    }

    #[test]
    fn the_next_endpoint_comes_at_once_and_the_next_round_after_a_growing_wait() {
        let mut course = course(Repeat::Safe);
        let down = failure(ErrorKind::Unavailable, Reach::NotSent);
        assert_eq!(try_at(course.after(&down, LEFT, 1.0)), ("b:2".to_owned(), Duration::ZERO));
        assert_eq!(try_at(course.after(&down, LEFT, 1.0)), ("a:1".to_owned(), BACKOFF_MIN));
        assert_eq!(try_at(course.after(&down, LEFT, 1.0)).1, Duration::ZERO);
        assert_eq!(try_at(course.after(&down, LEFT, 1.0)).1, BACKOFF_MIN * 2);
    }

    #[test]
    fn hints_are_followed_a_few_times() {
        let mut course = course(Repeat::Safe);
        let mut elsewhere = failure(ErrorKind::NotLeader, Reach::Sent);
        elsewhere.leader_hint = Some("c:3".to_owned());
        for _ in 0..HINT_HOPS_MAX {
            assert_eq!(try_at(course.after(&elsewhere, LEFT, 0.0)), ("c:3".to_owned(), Duration::ZERO));
        }
        assert_eq!(try_at(course.after(&elsewhere, LEFT, 0.0)).0, "b:2");
    }

    #[test]
    fn a_delay_asked_for_is_kept_and_never_passes_the_deadline() {
        let mut full = failure(ErrorKind::ResourceExhausted, Reach::Sent);
        full.retry_after = Some(Duration::from_secs(1));
        assert_eq!(try_at(course(Repeat::Safe).after(&full, LEFT, 0.0)).1, Duration::from_secs(1));
        assert_eq!(course(Repeat::Safe).after(&full, Duration::from_millis(900), 0.0), Next::GiveUp);
    }

    #[test]
    fn a_node_that_asks_for_a_delay_is_asked_again_as_soon_every_time() {
        let mut electing = failure(ErrorKind::Unavailable, Reach::Sent);
        electing.retry_after = Some(Duration::from_millis(200));
        let mut course = course(Repeat::Safe);
        for _ in 0..20 {
            assert_eq!(try_at(course.after(&electing, LEFT, 1.0)).1, Duration::from_millis(300));
        }
    }

    #[test]
    fn tries_and_waits_are_bounded() {
        let mut course = course(Repeat::Safe);
        let down = failure(ErrorKind::Unavailable, Reach::NotSent);
        let tries = (0..1_000).take_while(|_| course.after(&down, LEFT, 1.0) != Next::GiveUp).count();
        assert_eq!(tries, TRIES_MAX as usize - 1);
        assert_eq!(backoff(u32::MAX, 1.0), BACKOFF_MAX);
        assert_eq!(backoff(0, 0.0), BACKOFF_MIN / 2);
    }
}
