//! How many bytes of messages may be under way unacknowledged: enough to fill the link, few enough that what is urgent
//! does not wait long behind them.
//!
//! The transport below would take a megabyte and more before it pushes back, which on a slow link is half a minute. So
//! the window follows how long its bytes take: it grows while they come through quickly, and shrinks when they do not.

use std::time::Duration;

use super::frame::PIECE_BYTES_MAX;

/// Smallest window, bytes: three pieces keep a link of 256 kbit/s and 100 ms busy.
pub(super) const WINDOW_BYTES_MIN: usize = 3 * PIECE_BYTES_MAX;
/// Largest window, bytes.
pub(super) const WINDOW_BYTES_MAX: usize = 1024 * 1024;
/// A window that comes through sooner than this may grow.
const QUICK: Duration = Duration::from_millis(300);
/// A window that takes longer than this shrinks.
const SLOW: Duration = Duration::from_millis(1_500);

/// The window of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    bytes_max: usize,
    sent: u64,
    received: u64,
    /// The byte whose way is timed, and when it was sent.
    timed: Option<(u64, Duration)>,
    /// Whether something had to wait for room since the window last changed.
    was_full: bool,
    /// How long the byte that was timed last took there, with its acknowledgement back.
    took: Option<Duration>,
}

impl Window {
    /// A window with nothing under way.
    pub(super) fn new() -> Self {
        Self { bytes_max: WINDOW_BYTES_MIN, sent: 0, received: 0, timed: None, was_full: false, took: None }
    }

    fn under_way(&self) -> usize {
        usize::try_from(self.sent - self.received).unwrap_or(usize::MAX)
    }

    /// Whether another piece may be sent.
    pub(super) fn has_room(&mut self) -> bool {
        let has_room = self.under_way() < self.bytes_max;
        self.was_full |= !has_room;
        has_room
    }

    /// Notes that `bytes` were sent at `now`.
    pub(super) fn sent(&mut self, now: Duration, bytes: usize) {
        self.sent += bytes as u64;
        self.timed = self.timed.or(Some((self.sent, now)));
    }

    /// Notes that the other side took in `bytes` more. False if it never got that many.
    #[must_use]
    pub(super) fn received(&mut self, now: Duration, bytes: u32) -> bool {
        let received = self.received + u64::from(bytes);
        if received > self.sent {
            return false;
        }
        self.received = received;
        if let Some((_, since)) = self.timed.filter(|(byte, _)| *byte <= received) {
            let took = now.saturating_sub(since);
            if took <= QUICK && self.was_full {
                self.bytes_max = (self.bytes_max * 2).min(WINDOW_BYTES_MAX);
            } else if took >= SLOW {
                self.bytes_max = (self.bytes_max / 2).max(WINDOW_BYTES_MIN);
            }
            (self.timed, self.was_full, self.took) = (None, false, Some(took));
        }
        true
    }

    /// How long the byte that was timed last took there, with its acknowledgement back.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.took
    }

    /// Its size, bytes.
    #[cfg(test)]
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    /// Fills the window, and has all of it acknowledged after `took`.
    fn round(window: &mut Window, now: &mut Duration, took: Duration) {
        let mut sent = 0;
        while window.has_room() {
            window.sent(*now, PIECE_BYTES_MAX);
            sent += PIECE_BYTES_MAX;
        }
        *now += took;
        assert!(window.received(*now, u32::try_from(sent).unwrap()));
    }

    #[test]
    fn it_grows_on_a_quick_link_and_shrinks_on_a_slow_one() {
        let (mut window, mut now) = (Window::new(), Duration::ZERO);
        for _ in 0..10 {
            round(&mut window, &mut now, millis(20));
        }
        assert_eq!(window.bytes_max(), WINDOW_BYTES_MAX);
        for _ in 0..10 {
            round(&mut window, &mut now, millis(2_000));
        }
        assert_eq!(window.bytes_max(), WINDOW_BYTES_MIN);
        round(&mut window, &mut now, millis(800));
        assert_eq!(window.bytes_max(), WINDOW_BYTES_MIN, "neither quick nor slow");
    }

    #[test]
    fn it_does_not_grow_without_need_and_trusts_no_count_that_cannot_be() {
        let mut window = Window::new();
        assert!(window.has_room());
        window.sent(Duration::ZERO, 100);
        assert!(window.received(millis(1), 100));
        assert_eq!(window.bytes_max(), WINDOW_BYTES_MIN);
        assert!(!window.received(millis(2), 1), "more than was sent");
    }
}
