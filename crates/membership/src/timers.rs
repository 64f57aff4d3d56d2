//! One ordered queue of timers. Equal times come out in the order they went in, which the failure detector relies on.

use std::collections::BTreeMap;
use std::time::Duration;

/// Names a timer that waits.
pub(crate) type TimerKey = (Duration, u64);

/// Timers by due time.
#[derive(Debug)]
pub(crate) struct TimerQueue<T> {
    waiting: BTreeMap<TimerKey, T>,
    sequence: u64,
}

impl<T> TimerQueue<T> {
    /// A queue with nothing in it.
    pub(crate) fn new() -> Self {
        Self { waiting: BTreeMap::new(), sequence: 0 }
    }

    /// Adds `timer`, due at `at`.
    pub(crate) fn push(&mut self, at: Duration, timer: T) -> TimerKey {
        self.sequence += 1;
        let key = (at, self.sequence);
        self.waiting.insert(key, timer);
        key
    }

    /// Takes out a timer before it is due.
    pub(crate) fn cancel(&mut self, key: TimerKey) {
        self.waiting.remove(&key);
    }

    /// When the earliest timer is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// The earliest timer, if it is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<T> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_order_and_only_when_due() {
        let mut queue = TimerQueue::new();
        let second = Duration::from_secs(1);
        queue.push(second * 2, "c");
        queue.push(second, "a");
        let cancelled = queue.push(second, "x");
        queue.push(second, "b");
        queue.cancel(cancelled);
        assert_eq!(queue.next_due(), Some(second));
        assert_eq!(queue.pop_due(second / 2), None);
        assert_eq!([queue.pop_due(second), queue.pop_due(second), queue.pop_due(second)], [Some("a"), Some("b"), None]);
        assert_eq!(queue.pop_due(second * 3), Some("c"));
        assert_eq!(queue.next_due(), None);
    }
}
