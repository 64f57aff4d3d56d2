//! What `/health` and `/ready` say: a pure function of facts. The first four keys are those that users of an RPA
//! orchestrator's probe already parse.

use fleet_core::Timestamp;
use serde::Serialize;

/// What is known of this node and its site at one moment.
#[derive(Clone, Debug, Default)]
pub struct HealthFacts {
    /// Whether the store is open.
    pub store_open: bool,
    /// Whether the group's machinery runs.
    pub group_running: bool,
    /// Whether a leader is known.
    pub leader_known: bool,
    /// Whether the node is part of a fleet.
    pub joined: bool,
    /// Whether the node drains.
    pub draining: bool,
    /// Whether dispatch is held after a recovery.
    pub held: bool,
    /// Robots of the site that this node believes alive.
    pub robots_online: u32,
    /// Checks beside those above.
    pub checks: Vec<NamedCheck>,
    /// Wall time of the reading.
    pub now: Timestamp,
}

/// One named check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedCheck {
    /// What was checked.
    pub name: &'static str,
    /// `ok`, `warn` or `fail`.
    pub result: &'static str,
    /// What was found.
    pub detail: String,
}

/// Whether the node does its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// All is well.
    Healthy,
    /// No leader or quorum, or a check warns.
    Degraded,
    /// The store or the group is down.
    Unhealthy,
}

/// State of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DatabaseState {
    /// Open.
    Connected,
    /// Not open.
    Disconnected,
}

/// State of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueState {
    /// Jobs are placed.
    Active,
    /// Dispatch is held, or this node drains.
    Paused,
    /// There is no leader to place jobs.
    Unavailable,
}

/// The document of `/health`.
#[derive(Clone, Debug, Serialize)]
pub struct HealthDocument {
    /// Whether the node does its part.
    pub status: HealthStatus,
    /// State of the store.
    pub database: DatabaseState,
    /// State of the queue.
    pub queue: QueueState,
    /// Robots of the site that this node believes alive.
    pub robots_online: u32,
    /// RFC 3339.
    pub timestamp: String,
    /// The single checks.
    pub checks: Vec<NamedCheck>,
}

impl HealthFacts {
    /// The document for these facts.
    pub fn document(&self) -> HealthDocument {
        let warns = self.checks.iter().any(|check| check.result != "ok");
        let status = if !self.store_open || !self.group_running {
            HealthStatus::Unhealthy
        } else if !self.leader_known || warns {
            HealthStatus::Degraded
        } else {
            HealthStatus::Healthy
        };
        let queue = if !self.leader_known || !self.group_running {
            QueueState::Unavailable
        } else if self.held || self.draining {
            QueueState::Paused
        } else {
            QueueState::Active
        };
        HealthDocument {
            status,
            database: if self.store_open { DatabaseState::Connected } else { DatabaseState::Disconnected },
            queue,
            robots_online: self.robots_online,
            timestamp: self.now.to_string(),
            checks: self.checks.clone(),
        }
    }

    /// Why the node is not ready for work; empty means it is.
    pub fn reasons_not_ready(&self) -> Vec<&'static str> {
        [
            (!self.joined, "not part of a fleet yet"),
            (!self.store_open, "the store is not open"),
            (!self.group_running, "the group is not running"),
            (!self.leader_known, "no leader is known"),
            (self.draining, "the node drains"),
        ]
        .into_iter()
        .filter_map(|(applies, reason)| applies.then_some(reason))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> HealthFacts {
        HealthFacts {
            store_open: true,
            group_running: true,
            leader_known: true,
            joined: true,
            robots_online: 3,
            ..HealthFacts::default()
        }
    }

    #[test]
    fn a_healthy_node_says_what_the_orchestrator_said() {
        let text = serde_json::to_value(well().document()).expect("it is plain data");
        assert_eq!(text["status"], "healthy");
        assert_eq!(text["database"], "connected");
        assert_eq!(text["queue"], "active");
        assert_eq!(text["robots_online"], 3);
        assert_eq!(text["timestamp"], "1970-01-01T00:00:00.000Z");
        assert!(well().reasons_not_ready().is_empty());
    }

    type Break = fn(&mut HealthFacts);

    #[test]
    fn each_fault_shows() {
        let cases: [(Break, HealthStatus, QueueState, bool); 5] = [
            (|facts| facts.store_open = false, HealthStatus::Unhealthy, QueueState::Active, false),
            (|facts| facts.group_running = false, HealthStatus::Unhealthy, QueueState::Unavailable, false),
            (|facts| facts.leader_known = false, HealthStatus::Degraded, QueueState::Unavailable, false),
            (|facts| facts.draining = true, HealthStatus::Healthy, QueueState::Paused, false),
            (|facts| facts.held = true, HealthStatus::Healthy, QueueState::Paused, true),
        ];
        for (number, (break_it, status, queue, ready)) in cases.into_iter().enumerate() {
            let mut facts = well();
            break_it(&mut facts);
            let document = facts.document();
            assert_eq!((document.status, document.queue), (status, queue), "case {number}");
            assert_eq!(facts.reasons_not_ready().is_empty(), ready, "case {number}");
        }
    }

    #[test]
    fn a_warning_degrades() {
        let mut facts = well();
        facts.checks.push(NamedCheck { name: "disk", result: "warn", detail: "1 GiB free".to_owned() });
        assert_eq!(facts.document().status, HealthStatus::Degraded);
    }
}
