//! Effect paths: where in a run an effect or timer stands, the same on every replay, unique within the job.
//!
//! `/do/2/fetch` is the task; `~n` after it, the n-th visit of a task that `then` jumps back to; `/do/0/each/4/do/…`,
//! the round 4 of a loop; `/try~3/…`, the third try. Everything but letters, digits, `_`, `.` and `-` of a name is
//! percent-encoded, so a path is ASCII without spaces and the separators cannot come from a name.

/// The part of a task: its index in the scope and its name.
pub(super) fn segment(index: usize, name: &str) -> String {
    let mut segment = format!("{index}/");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-') {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

/// A part that is entered more than once: nothing is added the first time.
pub(super) fn numbered(part: &str, number: u32) -> String {
    if number <= 1 { part.to_owned() } else { format!("{part}~{number}") }
}

#[cfg(test)]
mod tests {
    use super::{numbered, segment};

    #[test]
    fn names_cannot_forge_separators() {
        assert_eq!(segment(2, "get pet/~3"), "2/get%20pet%2F%7E3");
        assert_eq!(segment(0, "ä"), "0/%C3%A4");
        assert_eq!(numbered("try", 1), "try");
        assert_eq!(numbered("try", 2), "try~2");
    }
}
