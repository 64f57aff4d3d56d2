//! How late this machine is: what a promise about time excepts has to be measured, not guessed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the meter sleeps at a time.
const NAP: Duration = Duration::from_millis(10);
/// A nap that ends this much too late is a stall: the fleet allows 150 ms for several steps in a row that each wait for a
/// processor.
const LATE: Duration = Duration::from_millis(75);

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    /// When naps ended that were late, and how late.
    late: Mutex<Vec<(Instant, Duration)>>,
}

/// A thread that only sleeps, and looks how late it wakes.
pub(crate) struct Stalls {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Stalls {
    /// Measures from now on.
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let measured = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !measured.is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(NAP);
                let late = began.elapsed().saturating_sub(NAP);
                if late >= LATE {
                    measured.late.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), late));
                }
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// When the machine stalled so far.
    pub(crate) fn seen(&self) -> Vec<Instant> {
        let late = self.shared.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.iter().map(|(at, _)| *at).collect()
    }

    /// How often, and how late at worst.
    pub(crate) fn worst(&self) -> (usize, Duration) {
        let late = self.shared.late.lock().unwrap_or_else(PoisonError::into_inner);
        (late.len(), late.iter().map(|(_, late)| *late).max().unwrap_or_default())
    }

    /// The same in words.
    pub(crate) fn summary(&self) -> String {
        let (count, worst) = self.worst();
        format!("the machine stalled {count} times, at worst for {worst:.0?}")
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        debug_assert!(ended.is_none_or(|ended| ended.is_ok()), "the meter does not panic");
    }
}
