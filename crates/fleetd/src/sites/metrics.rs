//! What the links to other sites count: names, labels and what they mean, in one place.

use fleet_core::{Clock, Error, SiteName, SystemClock};
use fleet_node::site_link::Traffic;
use metrics::{counter, describe_counter, describe_gauge, gauge};

use super::hub::SiteLinks;

const UP: &str = "fleet_site_link_up";
const HELD: &str = "fleet_site_link_held";
const SILENT: &str = "fleet_site_silent_seconds";
const ROUND_TRIP: &str = "fleet_site_link_round_trip_seconds";
const WAITING: &str = "fleet_site_link_waiting";
const SENT: &str = "fleet_site_link_sent_bytes_total";
const RECEIVED: &str = "fleet_site_link_received_bytes_total";
const DIALS: &str = "fleet_site_dials_total";

/// Tells the recorder what the metrics mean.
pub(super) fn describe() {
    describe_gauge!(UP, "1 if some node of this site holds a link to the other one, as far as this node knows, else 0");
    describe_gauge!(HELD, "1 if this node holds a link to the other site, else 0");
    describe_gauge!(SILENT, "Seconds since the other site was last heard; absent if it never was");
    describe_gauge!(ROUND_TRIP, "How long a piece last took over this node's link, with its acknowledgement back");
    describe_gauge!(WAITING, "Messages that wait for this node's link, by topic");
    describe_counter!(SENT, "Bytes of messages sent over this node's links, by topic");
    describe_counter!(RECEIVED, "Bytes of messages received over this node's links, by topic");
    describe_counter!(DIALS, "Dials of other sites by this node, by how they ended: made, or the kind of error");
}

/// Counts a dial of `site`.
pub(super) fn dialled(site: &SiteName, outcome: &Result<(), Error>) {
    let outcome = outcome.as_ref().map_or_else(|error| error.kind.as_str(), |()| "made");
    counter!(DIALS, "site" => site.to_string(), "outcome" => outcome).increment(1);
}

impl SiteLinks {
    /// Sets what is read only when somebody scrapes. Nothing in a fleet of one site.
    pub fn refresh_gauges(&self) {
        let now = SystemClock.now();
        for standing in self.standings() {
            let site = standing.site.to_string();
            let is_up = standing.link.is_some() || standing.is_held_elsewhere;
            gauge!(UP, "site" => site.clone()).set(f64::from(u8::from(is_up)));
            gauge!(HELD, "site" => site.clone()).set(f64::from(u8::from(standing.link.is_some())));
            if let Some(heard_at) = standing.heard_at {
                gauge!(SILENT, "site" => site.clone()).set(now.saturating_since(heard_at).as_secs_f64());
            }
            let figures = standing.link.map(|link| link.figures).unwrap_or_default();
            if let Some(round_trip) = figures.round_trip {
                gauge!(ROUND_TRIP, "site" => site.clone()).set(round_trip.as_secs_f64());
            }
            for (traffic, (sent, received)) in Traffic::ALL.into_iter().zip(standing.bytes) {
                let labels = [("site", site.clone()), ("topic", traffic.as_str().to_owned())];
                gauge!(WAITING, &labels).set(figures.flow(traffic).waiting as f64);
                counter!(SENT, &labels).absolute(sent);
                counter!(RECEIVED, &labels).absolute(received);
            }
        }
    }
}
