//! The metrics of membership: names, labels and what they mean, in one place.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Packets sent.
pub(crate) const PACKETS_SENT: &str = "fleet_membership_packets_sent_total";
/// Packets opened.
pub(crate) const PACKETS_RECEIVED: &str = "fleet_membership_packets_received_total";
/// Packets and items dropped, by `reason`.
pub(crate) const DROPPED: &str = "fleet_membership_dropped_total";
/// Packets that no key opened, by `reason`.
pub(crate) const DECRYPT_FAILS: &str = "fleet_membership_decrypt_fail_total";
/// Members by `state`.
pub(crate) const MEMBERS: &str = "fleet_membership_members";
/// Members of the ring between sites by `state`.
pub(crate) const WAN_MEMBERS: &str = "fleet_membership_wan_members";
/// The time of suspects in percent of what a healthy node gives.
pub(crate) const SUSPICION_PERCENT: &str = "fleet_membership_suspicion_percent";
/// How long one turn of the gossip loop took.
pub(crate) const TURN_SECONDS: &str = "fleet_membership_turn_seconds";
/// How late the gossip loop came to its earliest timer.
pub(crate) const LATE_SECONDS: &str = "fleet_membership_late_seconds";

/// Label of [`DROPPED`] and [`DECRYPT_FAILS`].
pub(crate) const REASON: &str = "reason";
/// Label of [`MEMBERS`].
pub(crate) const STATE: &str = "state";

/// Tells the recorder what the metrics mean.
pub(crate) fn describe() {
    describe_counter!(PACKETS_SENT, Unit::Count, "Gossip packets sent");
    describe_counter!(PACKETS_RECEIVED, Unit::Count, "Gossip packets received and opened");
    describe_counter!(DROPPED, Unit::Count, "Gossip packets, items or sends dropped, by reason");
    describe_counter!(DECRYPT_FAILS, Unit::Count, "Gossip packets that were not opened, by reason");
    describe_gauge!(MEMBERS, Unit::Count, "Members of the fleet as this node sees them, by state");
    describe_gauge!(WAN_MEMBERS, Unit::Count, "Nodes of all sites that gossip between sites, by state");
    describe_gauge!(
        SUSPICION_PERCENT,
        Unit::Percent,
        "Time this node gives suspects, in percent: more than 100 when its own timers are late"
    );
    describe_histogram!(TURN_SECONDS, Unit::Seconds, "Time of one turn of the gossip loop");
    describe_histogram!(LATE_SECONDS, Unit::Seconds, "How late the gossip loop came to its earliest due timer");
}
