//! What the listener counts.

use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::listener::access::Protocol;

const HANDSHAKES: &str = "fleet_listener_handshakes_total";
const PENDING: &str = "fleet_listener_handshakes_pending";
const CONNECTIONS: &str = "fleet_listener_connections";

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Admitted,
    /// TLS failed: garbage, a certificate that was refused, a client that went away.
    Refused,
    NoProtocol,
    TimedOut,
    Evicted,
    /// All places for connections are taken.
    Full,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::NoProtocol => "no_protocol",
            Self::TimedOut => "timed_out",
            Self::Evicted => "evicted",
            Self::Full => "full",
        }
    }
}

pub(super) fn describe() {
    describe_counter!(HANDSHAKES, "TLS handshakes by their outcome");
    describe_gauge!(PENDING, "TLS handshakes under way");
    describe_gauge!(CONNECTIONS, "Connections by protocol");
}

pub(super) fn handshake_ended(outcome: Outcome) {
    counter!(HANDSHAKES, "outcome" => outcome.as_str()).increment(1);
}

pub(super) fn handshakes_pending(count: usize) {
    gauge!(PENDING).set(u32::try_from(count).unwrap_or(u32::MAX));
}

pub(super) fn connection_opened(protocol: Protocol) {
    gauge!(CONNECTIONS, "protocol" => protocol.as_str()).increment(1);
}

pub(super) fn connection_closed(protocol: Protocol) {
    gauge!(CONNECTIONS, "protocol" => protocol.as_str()).decrement(1);
}
