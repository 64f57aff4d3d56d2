//! How much one answer takes: well below what a message may have, so that no job can be too large to be looked at.

/// Bytes after which an answer stops and says where the next one begins. Half of what a message may have, because one
/// item more than fits is never cut.
pub(super) const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Most items of one page.
pub(super) const PAGE_ITEMS_MAX: u32 = 1_000;

/// How many items a page has for which `asked` were asked; `default` where nobody said how many.
///
/// # Errors
/// What is wrong with more than a page has, in which `what` names the items.
pub(super) fn page_items(asked: u32, default: u32, what: &str) -> Result<usize, String> {
    let items = if asked == 0 { default } else { asked };
    if items > PAGE_ITEMS_MAX {
        return Err(format!("a page has at most {PAGE_ITEMS_MAX} {what}"));
    }
    Ok(items as usize)
}

/// The room of one answer.
#[derive(Debug)]
pub(super) struct Room {
    used: usize,
}

impl Room {
    /// The room of an answer that has `used` bytes already.
    pub(super) fn beside(used: usize) -> Self {
        Self { used }
    }

    /// Takes `bytes` more, unless the answer has something already and would pass the bound.
    pub(super) fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.used == 0 || self.used.saturating_add(bytes) <= PAGE_BYTES_MAX;
        if fits {
            self.used = self.used.saturating_add(bytes);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_stops_at_its_bound_and_is_never_empty_for_an_item_that_is_large() {
        let mut room = Room::beside(0);
        assert!(room.takes(PAGE_BYTES_MAX + 1), "the first item always goes");
        assert!(!room.takes(1));
        let mut room = Room::beside(PAGE_BYTES_MAX - 1);
        assert!(room.takes(1) && !room.takes(1));
        assert!(!Room::beside(PAGE_BYTES_MAX).takes(1), "what stands beside the items counts");
    }
}
