//! Virtual time: what happens next, in the order of its moment, and of its booking where moments are equal.

use std::collections::BTreeMap;

/// Events to come, and the time now.
#[derive(Clone, Debug)]
pub struct Agenda<E> {
    now_us: u64,
    booked: u64,
    events: BTreeMap<(u64, u64), E>,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { now_us: 0, booked: 0, events: BTreeMap::new() }
    }
}

impl<E> Agenda<E> {
    /// The time now, microseconds since the beginning.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Books `event` for `delay_us` from now.
    pub fn book(&mut self, delay_us: u64, event: E) {
        self.booked += 1;
        self.events.insert((self.now_us.saturating_add(delay_us), self.booked), event);
    }

    /// Goes on to the next event.
    pub fn next_event(&mut self) -> Option<E> {
        let ((at_us, _), event) = self.events.pop_first()?;
        self.now_us = at_us;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_booking() {
        let mut agenda = Agenda::default();
        for (delay_us, event) in [(20, "late"), (10, "first"), (10, "second")] {
            agenda.book(delay_us, event);
        }
        assert_eq!((agenda.next_event(), agenda.now_us()), (Some("first"), 10));
        agenda.book(5, "between");
        let rest: Vec<_> = std::iter::from_fn(|| agenda.next_event()).collect();
        assert_eq!(rest, ["second", "between", "late"]);
    }
}
