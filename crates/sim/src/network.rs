//! A network that loses, repeats, reorders and delays, and whose ways can be cut one by one and in one direction.

use std::collections::BTreeSet;

use crate::Dice;

/// How messages fare.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// How many of a hundred messages are lost.
    pub loss_percent: usize,
    /// How many of a hundred come twice.
    pub repeat_percent: usize,
    /// How many of a hundred take up to `slow_us` instead of `fast_us`; since each draws its own delay, they are reordered.
    pub slow_percent: usize,
    /// The longest delay of most messages, microseconds.
    pub fast_us: u64,
    /// The longest delay of a slow message, microseconds.
    pub slow_us: u64,
}

/// The network.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// How messages fare where the way is open.
    pub weather: Weather,
    cuts: BTreeSet<(usize, usize)>,
}

impl Network {
    /// A network with every way open.
    pub fn in_weather(weather: Weather) -> Self {
        Self { weather, cuts: BTreeSet::new() }
    }

    /// Nothing goes from `from` to `to` any more; the other way stays as it is.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Every way works again.
    pub fn restore_ways(&mut self) {
        self.cuts.clear();
    }

    /// Whether the way from `from` to `to` works.
    pub fn is_open(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains(&(from, to))
    }

    /// The delays, in microseconds, after which a message from `from` reaches `to`: none if it is lost, two if it is repeated.
    /// What a place sends to itself arrives soon and once.
    pub fn delays_us(&self, dice: &mut Dice, from: usize, to: usize) -> Vec<u64> {
        if from == to {
            return vec![1 + dice.below(100) as u64];
        }
        if !self.is_open(from, to) || dice.chance(self.weather.loss_percent) {
            return Vec::new();
        }
        let copies = if dice.chance(self.weather.repeat_percent) { 2 } else { 1 };
        (0..copies).map(|_| self.delay_us(dice)).collect()
    }

    fn delay_us(&self, dice: &mut Dice) -> u64 {
        let Weather { slow_percent, slow_us, fast_us, .. } = self.weather;
        let longest_us = if dice.chance(slow_percent) { slow_us } else { fast_us };
        1 + dice.below(usize::try_from(longest_us).unwrap_or(usize::MAX)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_one_way() {
        let mut network = Network::in_weather(Weather { fast_us: 10, ..Weather::default() });
        let mut dice = Dice::new(1);
        network.cut(0, 1);
        assert!(network.delays_us(&mut dice, 0, 1).is_empty());
        assert_eq!(network.delays_us(&mut dice, 1, 0).len(), 1);
        network.restore_ways();
        assert_eq!(network.delays_us(&mut dice, 0, 1).len(), 1);
    }

    #[test]
    fn messages_are_lost_and_repeated_as_often_as_said() {
        let weather = Weather { loss_percent: 30, repeat_percent: 50, fast_us: 10, ..Weather::default() };
        let network = Network::in_weather(weather);
        let mut dice = Dice::new(2);
        let mut counts = [0; 3];
        for _ in 0..1_000 {
            counts[network.delays_us(&mut dice, 0, 1).len()] += 1;
        }
        assert!(counts.iter().all(|count| (250..450).contains(count)), "{counts:?}");
    }
}
