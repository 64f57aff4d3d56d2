//! What may be asked of another site, and why the rest may not. Pure.

use fleet_core::{Error, ErrorKind};

/// What may be asked of another site: what can be asked and answered in one message each, and what a node of another site
/// may be trusted with.
const PASSED_ON: &[&str] =
    &["GetJob", "ListJobs", "GetJournal", "GetLogs", "ControlJob", "RetryJob", "ListNodes", "DrainNode", "GetStatus"];
/// What no other site may ask, whoever asks there: it says who belongs to the site.
const OF_TRUST: &[&str] = &["RemoveNode", "CreateToken", "ListTokens", "RevokeToken", "RecoverSite"];

/// The method of `path`, if another site may be asked.
///
/// # Errors
/// `Unsupported` that says why not, and what to do.
pub(super) fn method_of(path: &str) -> Result<&'static str, Error> {
    let named = path.rsplit('/').next().unwrap_or_default();
    PASSED_ON.iter().find(|method| **method == named).copied().ok_or_else(|| {
        let why = if OF_TRUST.contains(&named) {
            "it decides who belongs to that site, and a machine stolen elsewhere could ask it too"
        } else {
            "it is not passed on between sites"
        };
        Error::new(ErrorKind::Unsupported, format!("ask another site for {named}: {why}"))
            .with_next_step("Ask a node of that site, with --endpoint.")
    })
}
