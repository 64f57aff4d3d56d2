//! Logs and metrics of the process: one subscriber, one recorder.

use std::io;
use std::io::IsTerminal;

use fleet_core::{Error, ErrorKind};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Buckets for durations, seconds: from a fast commit to a long effect.
const DURATION_BUCKETS_SECONDS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Starts logging to standard error. Once a process.
///
/// # Errors
/// `InvalidInput` if `level` is neither a level nor directives.
pub fn start_logs(level: &str, format: LogFormat) -> Result<(), Error> {
    let filter = EnvFilter::try_new(with_quiet_libraries(level)).map_err(|source| {
        Error::new(ErrorKind::InvalidInput, format!("read log level `{level}`"))
            .with_next_step("Use error, warn, info, debug or trace, or directives such as info,fleet_node=debug.")
            .with_source(source)
    })?;
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // A second start in one process (tests) keeps the first subscriber: that is what `try_init` refuses.
    let _already_started = match format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
    Ok(())
}

/// `level` with the libraries that tell their inner life at every level turned down, unless it names them itself.
fn with_quiet_libraries(level: &str) -> String {
    if level.contains('=') { level.to_owned() } else { format!("{level},openraft=off,ractor_cluster=warn") }
}

/// Installs the process's metrics recorder and returns the handle that renders it. Someone must call `run_upkeep`
/// periodically, or histograms grow.
///
/// # Errors
/// `Internal` if there is a recorder already.
pub fn start_metrics() -> Result<PrometheusHandle, Error> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), DURATION_BUCKETS_SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|source| Error::new(ErrorKind::Internal, "install the metrics recorder").with_source(source))
}
