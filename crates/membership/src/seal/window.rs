//! Which sequence numbers of one sender were seen: a sliding window of 64.

/// Width of the window: how far out of order packets may come.
const WIDTH: u64 = 64;

/// The greatest number seen and which of the 63 before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    top: u64,
    seen: u64,
}

impl Window {
    /// Whether `sequence` may still come. Numbers start at 1.
    pub(super) fn is_fresh(&self, sequence: u64) -> bool {
        if sequence > self.top {
            return true;
        }
        let age = self.top - sequence;
        sequence != 0 && age < WIDTH && self.seen & (1 << age) == 0
    }

    /// Notes that `sequence` came.
    pub(super) fn mark(&mut self, sequence: u64) {
        if sequence > self.top {
            let step = sequence - self.top;
            self.seen = if step < WIDTH { self.seen << step } else { 0 };
            self.seen |= 1;
            self.top = sequence;
        } else {
            let age = self.top - sequence;
            if age < WIDTH {
                self.seen |= 1 << age;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_passes_once_within_the_window() {
        let mut window = Window::default();
        assert!(!window.is_fresh(0));
        for sequence in [1, 3, 2, 70, 10, 69] {
            assert!(window.is_fresh(sequence), "{sequence}");
            window.mark(sequence);
            assert!(!window.is_fresh(sequence), "{sequence}");
        }
        assert!(!window.is_fresh(6), "64 behind the top");
        assert!(window.is_fresh(7));
        window.mark(u64::MAX);
        assert!(!window.is_fresh(70));
        assert!(window.is_fresh(u64::MAX - 63));
    }
}
