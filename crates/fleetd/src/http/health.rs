//! What `/health` and `/ready` say: a pure function of facts. The first four keys are those that users of an RPA
//! orchestrator's probe already parse.

use std::collections::BTreeMap;

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
    /// Why the store is not open, where that is known.
    pub failure: Option<String>,
    /// Wall time of the reading.
    pub now: Timestamp,
}

/// One named check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCheck {
    /// What was checked.
    pub name: &'static str,
    /// How it is.
    pub check: HealthCheck,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// `ok`, `warn` or `fail`.
    pub status: &'static str,
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

impl HealthStatus {
    /// The word for it, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
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
    /// There is no leader to place jobs, or no store to keep them in.
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
    /// The single checks by name.
    pub checks: BTreeMap<&'static str, HealthCheck>,
}

impl HealthFacts {
    /// The document for these facts.
    pub fn document(&self) -> HealthDocument {
        let warns = self.checks.iter().any(|named| named.check.status != "ok");
        let status = if !self.store_open || !self.group_running {
            HealthStatus::Unhealthy
        } else if !self.leader_known || warns {
            HealthStatus::Degraded
        } else {
            HealthStatus::Healthy
        };
        let queue = if !self.leader_known || !self.group_running || !self.store_open {
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
            checks: self.all_checks(),
        }
    }

    fn all_checks(&self) -> BTreeMap<&'static str, HealthCheck> {
        let store = if self.store_open { ("ok", "open".to_owned()) } else { ("fail", self.why_closed()) };
        let group = match (self.group_running, self.leader_known) {
            (false, _) => ("fail", "not running"),
            (true, false) => ("warn", "no leader is known"),
            (true, true) => ("ok", "a leader is known"),
        };
        let named = self.checks.iter().map(|named| (named.name, named.check.clone()));
        let mut checks: BTreeMap<_, _> = named.collect();
        checks.insert("store", HealthCheck { status: store.0, detail: store.1 });
        checks.insert("group", HealthCheck { status: group.0, detail: group.1.to_owned() });
        checks
    }

    fn why_closed(&self) -> String {
        self.failure.clone().unwrap_or_else(|| "it failed, and is opened again".to_owned())
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
            (|facts| facts.store_open = false, HealthStatus::Unhealthy, QueueState::Unavailable, false),
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
        let check = HealthCheck { status: "warn", detail: "1 GiB free".to_owned() };
        facts.checks.push(NamedCheck { name: "disk", check });
        assert_eq!(facts.document().status, HealthStatus::Degraded);
    }

    #[test]
    fn checks_are_found_by_their_names() {
        let mut facts = well();
        facts.store_open = false;
        facts.failure = Some("no space left".to_owned());
        let text = serde_json::to_value(facts.document()).expect("it is plain data");
        assert_eq!(text["checks"]["store"], serde_json::json!({ "status": "fail", "detail": "no space left" }));
        assert_eq!(text["checks"]["group"]["status"], "ok");
        assert_eq!(text["database"], "disconnected");
    }
}
