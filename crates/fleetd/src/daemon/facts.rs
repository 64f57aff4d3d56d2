//! The facts behind `/health`, `/ready` and the gauges, read from the parts when somebody asks.

use fleet_core::{Clock, SystemClock};
use fleet_membership::{Membership, NodeState};
use fleet_store::record::{JobState, NodeStanding};
use fleet_store::state::{jobs, members};
use metrics::gauge;
use tokio::sync::watch;

use super::observer::Load;
use super::outbox_gauges;
use super::parts::Parts;
use crate::http::{FactsSource, HealthCheck, HealthFacts, NamedCheck};
use crate::site::Site;
use crate::sites::SiteLinks;

/// Reads the facts of one node.
pub(super) struct NodeFacts {
    site: Site,
    load: watch::Receiver<Load>,
    membership: Membership,
    reserve_bytes: u64,
    state: watch::Receiver<NodeState>,
    sites: SiteLinks,
}

impl NodeFacts {
    pub(super) fn new(
        parts: &Parts,
        reserve_bytes: u64,
        state: watch::Receiver<NodeState>,
        load: watch::Receiver<Load>,
    ) -> Self {
        let (site, membership, sites) = (parts.site.clone(), parts.membership.clone(), parts.sites.clone());
        Self { site, load, membership, reserve_bytes, state, sites }
    }

    fn robots_online(&self) -> u32 {
        u32::try_from(self.membership.current_view().active().count()).unwrap_or(u32::MAX)
    }

    /// Whether an operator drained this node.
    fn is_drained(&self) -> bool {
        let own = self.site.group().node();
        let record = self.site.reader().ok().and_then(|reader| members::node(&reader, own).ok()).flatten();
        record.is_some_and(|record| matches!(record.standing, NodeStanding::Draining { .. }))
    }

    fn disk_check(&self) -> NamedCheck {
        let (status, detail) = match self.site.store().free_bytes() {
            Ok(Some(free)) if free < self.reserve_bytes => {
                ("warn", format!("{free} bytes free, below the reserve of {}: new work is refused", self.reserve_bytes))
            }
            Ok(Some(free)) => ("ok", format!("{free} bytes free")),
            Ok(None) => ("ok", "in memory".to_owned()),
            Err(error) => ("warn", error.to_string()),
        };
        NamedCheck { name: "disk", check: HealthCheck { status, detail } }
    }
}

impl FactsSource for NodeFacts {
    fn facts(&self) -> HealthFacts {
        let status = self.site.group().status().borrow().clone();
        let state = *self.state.borrow();
        let held =
            self.site.reader().ok().and_then(|reader| jobs::site(&reader).ok()).is_some_and(|site| site.hold.is_some());
        HealthFacts {
            store_open: !self.site.store().is_poisoned(),
            group_running: !status.is_stopped(),
            leader_known: status.leader.is_some(),
            joined: !status.voter_sets.is_empty(),
            draining: self.is_drained()
                || self.load.borrow().is_draining
                || matches!(state, NodeState::Stopping | NodeState::Left),
            held,
            robots_online: self.robots_online(),
            checks: vec![self.disk_check()],
            failure: None,
            now: SystemClock.now(),
        }
    }

    fn refresh_gauges(&self) {
        self.sites.refresh_gauges();
        gauge!("casare_robots_active").set(f64::from(self.robots_online()));
        let load = *self.load.borrow();
        gauge!("fleet_kept_journals").set(load.kept_journals as f64);
        gauge!("fleet_refused_records").set(load.refused_records as f64);
        gauge!("fleet_dropped_journals").set(load.dropped_journals as f64);
        let Ok(reader) = self.site.reader() else { return };
        if let Err(error) = outbox_gauges::refresh(&reader, SystemClock.now()) {
            tracing::debug!(error = %fleet_core::error::chain(&error), "the gauges of the outbox are not set");
        }
        let Ok(site) = jobs::site(&reader) else { return };
        gauge!("casare_jobs_queue_depth").set(site.counters.jobs_in(JobState::Queued) as f64);
        for state in JobState::ALL {
            gauge!("fleet_jobs", "state" => state.as_str()).set(site.counters.jobs_in(state) as f64);
        }
    }
}
