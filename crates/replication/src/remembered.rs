//! What was last read of the applied state, kept until more of the log is applied: whoever looks again and again reads
//! nothing while nothing happens.
//!
//! Invariant: the index is asked for before the state is read, so what is remembered is never older than it says.

/// The last reading of something, with the index of the last entry that was applied before it.
#[derive(Debug)]
pub struct Remembered<T>(Option<(u64, T)>);

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Remembered<T> {
    /// What was read when `applied` was the index of the last applied entry; else what `read` gives now.
    ///
    /// # Errors
    /// Those of `read`; nothing is remembered then.
    pub fn get<E>(&mut self, applied: Option<u64>, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if let Some((index, value)) = &self.0
            && Some(*index) == applied
        {
            return Ok(value.clone());
        }
        let value = read()?;
        self.0 = applied.map(|index| (index, value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_again_only_once_more_is_applied() {
        let (mut remembered, mut reads) = (Remembered::default(), 0);
        let mut get = |applied| {
            remembered.get(applied, || {
                reads += 1;
                if reads == 4 { Err("the disk") } else { Ok(reads) }
            })
        };
        assert_eq!([get(None), get(None)], [Ok(1), Ok(2)], "nothing is applied that could be told apart");
        assert_eq!([get(Some(5)), get(Some(5))], [Ok(3), Ok(3)]);
        assert_eq!(get(Some(6)), Err("the disk"));
        assert_eq!([get(Some(6)), get(Some(6))], [Ok(5), Ok(5)], "a failure is not remembered, nor what was before it");
    }
}
