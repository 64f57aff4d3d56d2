//! How a site that cannot be asked is told of to people.

use fleet_core::time::age;
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
    }
}
