//! How a site that cannot be asked is told of to people.

use std::time::Duration;

use fleet_core::{Error, ErrorKind, SiteName, Timestamp};

/// The refusal for a site to which there is no link at `now`.
pub(super) fn unreachable(site: &SiteName, heard_at: Option<Timestamp>, now: Timestamp) -> Error {
    let message = match heard_at {
        Some(heard_at) => format!("site {site} was last heard {} ago", age(now.saturating_since(heard_at))),
        None => format!("site {site} was never heard from here"),
    };
    Error::new(ErrorKind::Unavailable, message)
        .with_next_step("It is asked again as soon as there is a link to it; nothing has to be done for that.")
}

/// A length of time in its largest whole unit, as in `3 h`.
pub(super) fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_how_long_a_site_has_been_silent() {
        let site: SiteName = "plant-7".parse().unwrap();
        let (now, hours) = (Timestamp(1_000_000_000), |hours: u64| Timestamp(1_000_000_000 - hours * 3_600_000));
        let error = unreachable(&site, Some(hours(3)), now);
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::Unavailable, "site plant-7 was last heard 3 h ago")
        );
        assert!(unreachable(&site, None, now).message.contains("never heard"));
        assert!(unreachable(&site, Some(Timestamp(now.0 + 5)), now).message.ends_with("0 s ago"), "clocks differ");
        let ages = [0, 59, 60, 3_599, 3_600, 172_799, 172_800].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["0 s", "59 s", "1 min", "59 min", "1 h", "47 h", "2 days"]);
    }
}
