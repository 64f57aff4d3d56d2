//! `version`: this program's own.

use serde_json::json;

use crate::error::Failure;
use crate::render::{self, Format};

pub(crate) fn run(format: Format) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    Ok(render::data(format, &json!({"version": version}), || format!("fleetctl {version}"))?)
}
