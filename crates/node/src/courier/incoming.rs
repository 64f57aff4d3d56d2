//! Blobs on their way in, part by part. Pure: parts in, whole blobs out.
//!
//! A transfer that broke off goes on where it stood, as long as this node leads. What came is bounded: past the bound the
//! blob that waited longest for its next part is dropped, and begins anew if it is sent again.

use std::collections::VecDeque;

use fleet_core::Digest;
use fleet_core::limits::{DEFINITION_BYTES_MAX, EFFECT_RESULT_BYTES_MAX, INCOMING_BLOB_BYTES_MAX, INPUT_BYTES_MAX};

use super::wire::Part;

/// Most whole blobs that are remembered, so that they are not asked for again.
const WHOLE_MAX: usize = 4_096;
/// Most blobs that wait for their next part.
const PARTIAL_MAX: usize = 256;
/// Largest blob that a transfer has.
const BLOB_BYTES_MAX: usize = {
    let largest = if DEFINITION_BYTES_MAX > INPUT_BYTES_MAX { DEFINITION_BYTES_MAX } else { INPUT_BYTES_MAX };
    if largest > EFFECT_RESULT_BYTES_MAX { largest } else { EFFECT_RESULT_BYTES_MAX }
};

/// What came of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// More is needed: how many bytes are there.
    More(u64),
    /// The blob is whole and has its digest.
    Whole(Vec<u8>),
    /// The blob is here already.
    Known,
    /// It can never be a blob: too large, or its bytes have another digest.
    Refused,
}

/// Blobs on their way in.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// The one whose part came last is last.
    partial: VecDeque<(Digest, Vec<u8>)>,
    bytes: usize,
    whole: VecDeque<Digest>,
}

impl Incoming {
    /// Takes one part.
    pub(super) fn take(&mut self, part: &Part) -> Taken {
        if self.has(part.digest) {
            return Taken::Known;
        }
        let Some(length) = usize::try_from(part.length).ok().filter(|length| *length <= BLOB_BYTES_MAX) else {
            return Taken::Refused;
        };
        let at = self.partial.iter().position(|(digest, _)| *digest == part.digest);
        let mut content = at.and_then(|at| self.partial.remove(at)).map(|(_, content)| content).unwrap_or_default();
        self.bytes -= content.len();
        if part.offset == content.len() as u64 {
            content.extend_from_slice(part.bytes.as_slice());
        }
        if content.len() < length {
            let have = content.len() as u64;
            // A part that does not begin the blob leaves nothing that would have to be remembered.
            if have > 0 {
                self.keep(part.digest, content);
            }
            return Taken::More(have);
        }
        if content.len() == length && Digest::of(&content) == part.digest {
            Taken::Whole(content)
        } else {
            Taken::Refused
        }
    }

    fn keep(&mut self, digest: Digest, content: Vec<u8>) {
        self.bytes += content.len();
        self.partial.push_back((digest, content));
        while self.bytes > INCOMING_BLOB_BYTES_MAX || self.partial.len() > PARTIAL_MAX {
            let Some((_, dropped)) = self.partial.pop_front() else { return };
            self.bytes -= dropped.len();
        }
    }

    /// The blob is stored on a majority.
    pub(super) fn note_whole(&mut self, digest: Digest) {
        if !self.has(digest) {
            if self.whole.len() == WHOLE_MAX {
                self.whole.pop_front();
            }
            self.whole.push_back(digest);
        }
    }

    /// The blob cannot be found, although it was here.
    pub(super) fn note_gone(&mut self, digest: Digest) {
        self.whole.retain(|known| *known != digest);
    }

    /// Whether the blob came whole.
    pub(super) fn has(&self, digest: Digest) -> bool {
        self.whole.contains(&digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_store::record::Payload;

    fn part(content: &[u8], offset: usize, length: usize) -> Part {
        let bytes = Payload::from(content[offset..(offset + length).min(content.len())].to_vec());
        Part { digest: Digest::of(content), length: content.len() as u64, offset: offset as u64, bytes }
    }

    #[test]
    fn a_blob_is_whole_after_its_parts_in_order_however_often_they_come() {
        let content: Vec<u8> = (0..250).collect();
        let mut incoming = Incoming::default();
        assert_eq!(incoming.take(&part(&content, 0, 100)), Taken::More(100));
        assert_eq!(incoming.take(&part(&content, 0, 100)), Taken::More(100), "a repeat adds nothing");
        assert_eq!(incoming.take(&part(&content, 200, 50)), Taken::More(100), "a gap is not jumped");
        assert_eq!(incoming.take(&part(&content, 100, 100)), Taken::More(200));
        assert_eq!(incoming.take(&part(&content, 200, 50)), Taken::Whole(content.clone()));
        incoming.note_whole(Digest::of(&content));
        assert_eq!(incoming.take(&part(&content, 0, 100)), Taken::Known);
        incoming.note_gone(Digest::of(&content));
        assert_eq!(incoming.take(&part(&content, 0, 100)), Taken::More(100));
    }

    #[test]
    fn what_is_no_blob_is_refused_and_what_waits_is_bounded() {
        let mut incoming = Incoming::default();
        let forged = Part { digest: Digest::of(b"other"), ..part(b"content", 0, 7) };
        assert_eq!(incoming.take(&forged), Taken::Refused);
        let large = Part { length: u64::MAX, ..part(b"content", 0, 7) };
        assert_eq!(incoming.take(&large), Taken::Refused);
        let longer = Part { length: 3, ..part(b"content", 0, 7) };
        assert_eq!(incoming.take(&longer), Taken::Refused);
        for number in 0..20_u8 {
            let content = vec![number; BLOB_BYTES_MAX];
            assert_eq!(incoming.take(&part(&content, 0, BLOB_BYTES_MAX - 1)), Taken::More(BLOB_BYTES_MAX as u64 - 1));
            assert!(incoming.bytes <= INCOMING_BLOB_BYTES_MAX);
        }
        for number in 0..2 * PARTIAL_MAX as u64 {
            let content = [number.to_le_bytes(), [1; 8]].concat();
            assert_eq!(incoming.take(&part(&content, 8, 8)), Taken::More(0));
            assert!(incoming.partial.iter().all(|(digest, _)| *digest != Digest::of(&content)), "nothing of it came");
            assert_eq!(incoming.take(&part(&content, 0, 8)), Taken::More(8));
            assert!(incoming.partial.len() <= PARTIAL_MAX);
        }
        let kept: usize = incoming.partial.iter().map(|(_, content)| content.len()).sum();
        assert_eq!(kept, incoming.bytes);
    }
}
