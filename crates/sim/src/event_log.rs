//! What happened in a simulation, line by line: a hash of all of it, and the last lines for whoever must find out why.

use std::collections::VecDeque;

/// FNV-1a with 128 bits: not for secrets, the same everywhere.
const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// The log.
#[derive(Clone, Debug)]
pub struct EventLog {
    hash: u128,
    lines: u64,
    tail: VecDeque<String>,
    is_told: bool,
}

impl Default for EventLog {
    fn default() -> Self {
        Self { hash: OFFSET, lines: 0, tail: VecDeque::new(), is_told: false }
    }
}

impl EventLog {
    /// How many lines the tail has.
    const TAIL_LINES: usize = 120;

    /// Writes every line on stderr, too.
    #[must_use]
    pub fn told(mut self) -> Self {
        self.is_told = true;
        self
    }

    /// Adds a line.
    pub fn note(&mut self, line: String) {
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u128::from(byte)).wrapping_mul(PRIME);
        }
        self.lines += 1;
        if self.is_told {
            eprintln!("{line}");
        }
        if self.tail.len() == Self::TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// The hash of every line so far.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// How many lines there were.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The last lines.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_every_line_and_of_where_it_ends() {
        let log_of = |lines: &[&str]| {
            let mut log = EventLog::default();
            lines.iter().for_each(|line| log.note((*line).to_owned()));
            log
        };
        assert_eq!(log_of(&["a", "b"]).hash(), log_of(&["a", "b"]).hash());
        assert_ne!(log_of(&["a", "b"]).hash(), log_of(&["ab"]).hash());
        assert_eq!(log_of(&["a", "b"]).tail().collect::<Vec<_>>(), ["a", "b"]);
    }
}
