//! Gossip's memory in the node's store: one row that the store keeps without looking inside.

use fleet_membership::{Persistence, PersistenceError, Remembered};
use fleet_store::Store;

/// Name of the row.
const ROW: &str = "gossip";

/// Keeps what membership remembers.
#[derive(Clone)]
pub struct StoreMemory {
    store: Store,
}

impl StoreMemory {
    /// In `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

impl Persistence for StoreMemory {
    fn load(&self) -> Result<Remembered, PersistenceError> {
        match self.store.meta(ROW)? {
            Some(bytes) => Ok(Remembered::decode(&bytes)?),
            None => Ok(Remembered::default()),
        }
    }

    fn save(&self, remembered: &Remembered) -> Result<(), PersistenceError> {
        Ok(self.store.put_meta(ROW, remembered.encode()?).wait()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let memory = StoreMemory::new(Store::in_memory().expect("a store in memory opens"));
        assert_eq!(memory.load().expect("readable"), Remembered::default());
        let remembered = Remembered { incarnation: 7 << 32, members: Vec::new() };
        memory.save(&remembered).expect("writable");
        assert_eq!(memory.load().expect("readable"), remembered);
    }
}
