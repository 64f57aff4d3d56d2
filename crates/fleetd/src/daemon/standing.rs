//! How this process stands, for whoever asks over HTTP or gRPC: the facts of the node while it is up, and why it is not
//! while it is not. It outlives every run of the node, so `/health` answers also while a failed store is opened again.

use std::sync::Arc;

use fleet_core::{Clock, SystemClock};
use tokio::sync::watch;

use super::facts::NodeFacts;
use crate::http::{FactsSource, HealthFacts};

/// The standing. A cheap handle.
#[derive(Clone)]
pub(crate) struct Standing {
    now: Arc<watch::Sender<Now>>,
}

/// What is known now.
enum Now {
    /// The node is not up, for this reason.
    Down(String),
    /// The node is up.
    Up(Box<NodeFacts>),
}

impl Standing {
    /// A process whose node starts.
    pub(super) fn starting() -> Self {
        Self { now: Arc::new(watch::Sender::new(Now::Down("the node starts".to_owned()))) }
    }

    /// The node is up, and these are its facts.
    pub(super) fn up(&self, facts: NodeFacts) {
        self.now.send_replace(Now::Up(Box::new(facts)));
    }

    /// The node is not up any more. Returns when nobody reads its facts, and with them its store.
    pub(super) fn down(&self, why: impl Into<String>) {
        drop(self.now.send_replace(Now::Down(why.into())));
    }
}

impl FactsSource for Standing {
    fn facts(&self) -> HealthFacts {
        match &*self.now.borrow() {
            Now::Up(facts) => facts.facts(),
            Now::Down(why) => {
                HealthFacts { failure: Some(why.clone()), now: SystemClock.now(), ..HealthFacts::default() }
            }
        }
    }

    fn refresh_gauges(&self) {
        if let Now::Up(facts) = &*self.now.borrow() {
            facts.refresh_gauges();
        }
    }
}
