//! Since when this node has heard no leader. Pure.

use std::time::Duration;

use fleet_core::BootInstant;
use fleet_replication::Status;

/// What was last noted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Silence {
    since: Option<BootInstant>,
}

impl Silence {
    /// Notes what the group says at `now`; for how long there has been no leader, or `None` if there is one.
    pub(super) fn note(&mut self, is_led: bool, now: BootInstant) -> Option<Duration> {
        self.since = if is_led { None } else { Some(self.since.unwrap_or(now)) };
        self.since.map(|since| now.saturating_since(since))
    }
}

/// Whether this node serves as leader or hears one.
pub(super) fn has_leader(status: &Status) -> bool {
    status.serving_term.is_some() || status.leader.is_some()
}

#[cfg(test)]
mod tests {
    use fleet_core::NodeId;

    use super::*;

    #[test]
    fn silence_is_counted_from_the_last_leader() {
        let start = BootInstant::default();
        let at = |secs| start.saturating_add(Duration::from_secs(secs));
        let mut silence = Silence::default();
        assert_eq!(silence.note(false, at(10)), Some(Duration::ZERO));
        assert_eq!(silence.note(false, at(25)), Some(Duration::from_secs(15)));
        assert_eq!(silence.note(true, at(26)), None);
        assert_eq!(silence.note(false, at(40)), Some(Duration::ZERO));
    }

    #[test]
    fn who_serves_needs_no_other_leader() {
        let none = Status::default();
        assert!(!has_leader(&none));
        assert!(has_leader(&Status { serving_term: Some(3), ..none.clone() }));
        assert!(has_leader(&Status { leader: Some(NodeId::generate()), ..none }));
    }
}
