//! A line on standard error while something takes long, if a person looks at it. It is gone when the thing is done.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How long something may take in silence, and how often the line changes then.
const PATIENCE: Duration = Duration::from_secs(1);

/// Completes with `work`; shows `label` and the seconds meanwhile.
pub(crate) async fn during<T>(label: &str, work: impl Future<Output = T>) -> T {
    if !io::stderr().is_terminal() {
        return work.await;
    }
    let start = Instant::now();
    let mut tick = interval_at(start + PATIENCE, PATIENCE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = false;
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            biased;
            result = &mut work => break result,
            _ = tick.tick() => {
                shown = true;
                print(&format!("\r{label} … {} s", start.elapsed().as_secs()));
            }
        }
    };
    if shown {
        print("\r\x1b[K");
    }
    result
}

fn print(text: &str) {
    let mut stderr = io::stderr().lock();
    // A progress line that cannot be shown is not missed.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
