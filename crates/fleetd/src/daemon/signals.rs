//! What makes a node stop: SIGTERM, Ctrl-C, or standard input closing where its owner asked for that.

use fleet_core::{Error, ErrorKind};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

/// A value that turns true when the process is to stop.
///
/// # Errors
/// If the signals cannot be watched.
pub fn watch_signals() -> Result<(watch::Sender<bool>, watch::Receiver<bool>), Error> {
    let failed = |source: std::io::Error| Error::new(ErrorKind::Internal, "watch for signals").with_source(source);
    let termination = crate::platform::termination().map_err(failed)?;
    let (sender, receiver) = watch::channel(false);
    let stop = sender.clone();
    // Owned by the process: it ends with it.
    tokio::spawn(async move {
        termination.await;
        stop.send_replace(true);
    });
    Ok((sender, receiver))
}

/// Turns `stop` true when standard input ends.
pub fn watch_stdin(stop: watch::Sender<bool>) {
    // Owned by the process: it ends with it.
    tokio::spawn(async move {
        let mut input = tokio::io::stdin();
        let mut bytes = [0; 64];
        while matches!(input.read(&mut bytes).await, Ok(length) if length > 0) {}
        stop.send_replace(true);
    });
}
