//! A disk that keeps records in order: what was not synced is lost with the power, the last write may be torn, a bit may
//! flip, and there may be no room. Records are values; that each carries a checksum is taken for granted.

use std::fmt;

use crate::Dice;

/// How a record lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Whole,
    /// Its write was not finished when the power went.
    Torn,
    /// A bit of it has flipped.
    Damaged,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk<R> {
    records: Vec<(R, Condition)>,
    synced: usize,
    /// Whether there is no room for another record.
    pub is_full: bool,
}

/// Why a disk could not be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// There is no room.
    Full,
    /// A record that was synced does not have its checksum.
    Damaged,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the disk is full",
            Self::Damaged => "the disk is damaged",
        })
    }
}

impl<R> Default for Disk<R> {
    fn default() -> Self {
        Self { records: Vec::new(), synced: 0, is_full: false }
    }
}

impl<R: Clone> Disk<R> {
    /// Writes a record, which is safe only after the next [`Self::sync`].
    ///
    /// # Errors
    /// [`DiskError::Full`]; nothing is written then.
    pub fn write(&mut self, record: R) -> Result<(), DiskError> {
        if self.is_full {
            return Err(DiskError::Full);
        }
        self.records.push((record, Condition::Whole));
        Ok(())
    }

    /// What is written up to now survives.
    pub fn sync(&mut self) {
        self.synced = self.records.len();
    }

    /// The power goes: of what was not synced some of the first writes survive, and the next one may be torn.
    pub fn lose_power(&mut self, dice: &mut Dice) {
        let unsynced = self.records.len() - self.synced;
        let kept = self.synced + dice.below(unsynced + 1);
        let is_torn = kept < self.records.len() && dice.chance(50);
        self.records.truncate(kept + usize::from(is_torn));
        if is_torn && let Some((_, condition)) = self.records.last_mut() {
            *condition = Condition::Torn;
        }
    }

    /// A bit of one of the synced records flips, if there are any.
    pub fn flip_a_bit(&mut self, dice: &mut Dice) {
        let place = dice.below(self.synced);
        if let Some((_, condition)) = self.records.get_mut(place) {
            *condition = Condition::Damaged;
        }
    }

    /// Everything on the disk, as a process that starts reads it. A torn write at the end counts as not written.
    ///
    /// # Errors
    /// [`DiskError::Damaged`].
    pub fn open(&mut self) -> Result<Vec<R>, DiskError> {
        self.records.retain(|(_, condition)| *condition != Condition::Torn);
        if self.records.iter().any(|(_, condition)| *condition == Condition::Damaged) {
            return Err(DiskError::Damaged);
        }
        self.synced = self.records.len();
        Ok(self.records.iter().map(|(record, _)| record.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_of_the_rest_only_a_beginning() {
        let mut lengths = Vec::new();
        for seed in 0..50 {
            let mut disk = Disk::default();
            disk.write(1).expect("there is room");
            disk.sync();
            (2..5).for_each(|record| disk.write(record).expect("there is room"));
            disk.lose_power(&mut Dice::new(seed));
            let kept = disk.open().expect("nothing is damaged");
            assert_eq!(kept, (1..=kept.len()).collect::<Vec<_>>());
            lengths.push(kept.len());
        }
        lengths.sort_unstable();
        lengths.dedup();
        assert_eq!(lengths, [1, 2, 3, 4]);
    }

    #[test]
    fn damage_and_want_of_room_are_reported() {
        let mut disk = Disk::default();
        disk.write(1).expect("there is room");
        disk.sync();
        disk.is_full = true;
        assert_eq!(disk.write(2), Err(DiskError::Full));
        disk.flip_a_bit(&mut Dice::new(1));
        assert_eq!(disk.open(), Err(DiskError::Damaged));
    }
}
