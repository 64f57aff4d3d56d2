//! When a node asks for a new certificate, and a site for one of its authority; and whether an old one still entitles to
//! that. Pure.
//!
//! Invariant: an expired certificate is good for a renewal and nothing else, for one year.

use std::time::Duration;

use fleet_core::Timestamp;

use crate::trust::authority::{NODE_LIFETIME, SITE_LIFETIME};

/// How old a node's certificate is when its node first asks for the next one.
pub const RENEWAL_AGE: Duration = Duration::from_secs(10 * 86_400);
/// How old the certificate of a site's authority is when its site first asks for the next one: 3 of its 5 years, so that
/// two are left in which to have a link to the first site once.
pub const AUTHORITY_RENEWAL_AGE: Duration = Duration::from_secs(3 * 365 * 86_400);
/// How long after its end a certificate still entitles to a renewal: the time that a box may be off.
pub const EXPIRED_MAX: Duration = Duration::from_secs(365 * 86_400);
/// The wait after the first failed renewal; it doubles up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_secs(60);
/// The pause after a renewal, whatever the clock says: by one that is ahead every new certificate is due at once.
pub const RENEWED_PAUSE: Duration = Duration::from_secs(86_400);
/// The longest wait between two tries.
pub const RETRY_MAX: Duration = Duration::from_secs(3_600);

/// What a certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything.
    Valid,
    /// Asking for the next one.
    RenewalOnly,
    /// Nothing.
    Dead,
}

/// What a node's certificate that ends at `not_after` is good for at `now`.
pub fn standing(not_after: Timestamp, now: Timestamp) -> Standing {
    if now <= not_after {
        Standing::Valid
    } else if now <= not_after.saturating_add(EXPIRED_MAX) {
        Standing::RenewalOnly
    } else {
        Standing::Dead
    }
}

/// How long after `now` a node whose certificate ends at `not_after` asks for the next one; zero if it is time.
pub fn renewal_in(not_after: Timestamp, now: Timestamp) -> Duration {
    ahead_of(not_after, NODE_LIFETIME - RENEWAL_AGE).saturating_since(now)
}

/// Whether at `now` it is time for the certificate after one of a site's authority that ends at `not_after`.
pub fn is_authority_due(not_after: Timestamp, now: Timestamp) -> bool {
    ahead_of(not_after, SITE_LIFETIME - AUTHORITY_RENEWAL_AGE) <= now
}

fn ahead_of(end: Timestamp, by: Duration) -> Timestamp {
    Timestamp(end.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
}

/// How long after `now` the next renewal is tried, `failures` failed ones after the last success, which was `renewed` ago if
/// it fell into this run of the process. The wall clock decides, within bounds that a wrong one cannot pass.
pub fn next_try_in(not_after: Timestamp, now: Timestamp, failures: u32, renewed: Option<Duration>) -> Duration {
    if failures > 0 {
        return retry_in(failures);
    }
    let by_clock = renewal_in(not_after, now);
    match renewed {
        Some(ago) => by_clock.min(RENEWAL_AGE.saturating_sub(ago)).max(RENEWED_PAUSE.saturating_sub(ago)),
        None => by_clock,
    }
}

/// The wait after `failures` failed renewals in a row.
pub fn retry_in(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn a_certificate_is_valid_then_renewable_then_dead() {
        let end = Timestamp(1_000 * DAY_MS);
        for (now, expected) in [
            (0, Standing::Valid),
            (end.0, Standing::Valid),
            (end.0 + 1, Standing::RenewalOnly),
            (end.0 + 365 * DAY_MS, Standing::RenewalOnly),
            (end.0 + 365 * DAY_MS + 1, Standing::Dead),
        ] {
            assert_eq!(standing(end, Timestamp(now)), expected, "{now}");
        }
    }

    #[test]
    fn renewal_is_due_from_the_tenth_day() {
        let issued = Timestamp(500 * DAY_MS);
        let end = issued.saturating_add(NODE_LIFETIME);
        assert_eq!(renewal_in(end, issued), RENEWAL_AGE);
        assert_eq!(renewal_in(end, Timestamp(issued.0 + 10 * DAY_MS)), Duration::ZERO);
        assert_eq!(renewal_in(end, Timestamp(issued.0 + 90 * DAY_MS)), Duration::ZERO);
    }

    #[test]
    fn an_authority_is_due_from_the_third_year_on() {
        let issued = Timestamp(500 * DAY_MS);
        let end = issued.saturating_add(SITE_LIFETIME);
        for (day, expected) in [(0, false), (3 * 365 - 1, false), (3 * 365, true), (5 * 365, true), (9 * 365, true)] {
            assert_eq!(is_authority_due(end, Timestamp(issued.0 + day * DAY_MS)), expected, "day {day}");
        }
    }

    #[test]
    fn a_wrong_clock_neither_renews_in_a_loop_nor_never() {
        let issued = Timestamp(500 * DAY_MS);
        let end = issued.saturating_add(NODE_LIFETIME);
        let at = |days: u64| Timestamp(days * DAY_MS);
        let day = Duration::from_secs(86_400);
        assert_eq!(next_try_in(end, at(500), 0, Some(Duration::ZERO)), RENEWAL_AGE);
        assert_eq!(next_try_in(end, at(525), 0, Some(Duration::ZERO)), RENEWED_PAUSE, "25 days ahead of the signer");
        assert_eq!(next_try_in(end, at(525), 0, Some(day * 2)), Duration::ZERO);
        assert_eq!(next_try_in(end, at(100), 0, Some(day * 4)), day * 6, "a year behind");
        assert_eq!(next_try_in(end, at(100), 0, Some(day * 11)), Duration::ZERO);
        assert_eq!(next_try_in(end, at(525), 2, Some(Duration::ZERO)), retry_in(2));
        assert_eq!(next_try_in(end, at(525), 0, None), Duration::ZERO, "after a start the clock alone is known");
    }

    #[test]
    fn failed_renewals_are_tried_again_ever_more_slowly() {
        assert_eq!(retry_in(1), RETRY_MIN);
        assert_eq!(retry_in(2), RETRY_MIN * 2);
        assert_eq!(retry_in(u32::MAX), RETRY_MAX);
    }
}
