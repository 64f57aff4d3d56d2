//! Messages that come in pieces, put together again. Bounded: what does not fit is discarded to its end and refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleet_store::record::Payload;

use super::frame::{CallNumber, Part, Piece};
use super::protocol::MESSAGE_BYTES_MAX;

/// Most bytes of unfinished messages, all together.
const UNFINISHED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most messages unfinished at once; more than both sides' calls together.
const UNFINISHED_MAX: usize = 512;

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// More must come.
    Unfinished,
    /// The message is whole.
    Whole(Payload),
    /// There was no room for the message, which has ended now.
    Discarded,
    /// The other side breaks the bounds that both know.
    Violation(&'static str),
}

/// Whose call it is, as far as it matters for the name: the speaker's, or the other side's.
type Name = (bool, CallNumber);

/// Unfinished messages of one link.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// `None` for one that is discarded.
    unfinished: BTreeMap<Name, Option<Vec<u8>>>,
    bytes: usize,
}

impl Inbox {
    /// Takes one piece.
    pub(super) fn take(&mut self, piece: &Piece) -> Taken {
        let name = (matches!(piece.part, Part::Ask(_)), piece.call);
        if !self.unfinished.contains_key(&name) {
            if piece.is_last {
                return Taken::Whole(piece.bytes.clone());
            }
            if self.unfinished.len() >= UNFINISHED_MAX {
                return Taken::Violation("too many unfinished messages");
            }
        }
        let part = self.unfinished.entry(name).or_insert_with(|| Some(Vec::new()));
        let added = piece.bytes.as_slice();
        match part {
            Some(bytes) if bytes.len() + added.len() > MESSAGE_BYTES_MAX => {
                return Taken::Violation("a message is too long");
            }
            Some(bytes) if self.bytes + added.len() > UNFINISHED_BYTES_MAX => {
                self.bytes -= bytes.len();
                *part = None;
            }
            Some(bytes) => {
                bytes.extend_from_slice(added);
                self.bytes += added.len();
            }
            None => {}
        }
        if !piece.is_last {
            return Taken::Unfinished;
        }
        match self.unfinished.remove(&name).flatten() {
            Some(bytes) => {
                self.bytes -= bytes.len();
                Taken::Whole(Payload(Bytes::from(bytes)))
            }
            None => Taken::Discarded,
        }
    }

    /// Forgets what came of a question of the other side.
    pub(super) fn forget_ask(&mut self, call: CallNumber) {
        self.forget((true, call));
    }

    /// Forgets what came of an answer to a call of ours.
    pub(super) fn forget_answer(&mut self, call: CallNumber) {
        self.forget((false, call));
    }

    fn forget(&mut self, name: Name) {
        if let Some(Some(bytes)) = self.unfinished.remove(&name) {
            self.bytes -= bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::SiteTopic;

    fn piece(call: CallNumber, bytes: &[u8], is_last: bool) -> Piece {
        Piece { call, part: Part::Ask(SiteTopic::Catalog), is_last, bytes: Payload::from(bytes.to_vec()) }
    }

    #[test]
    fn pieces_of_several_messages_come_together() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.take(&piece(1, b"ab", false)), Taken::Unfinished);
        assert_eq!(inbox.take(&piece(2, b"x", true)), Taken::Whole(Payload::from("x")));
        let answer = Piece { part: Part::Answer, ..piece(1, b"other", true) };
        assert_eq!(inbox.take(&answer), Taken::Whole(Payload::from("other")), "another call of the same number");
        assert_eq!(inbox.take(&piece(1, b"cd", true)), Taken::Whole(Payload::from("abcd")));
        assert_eq!((inbox.bytes, inbox.unfinished.len()), (0, 0));
    }

    #[test]
    fn what_does_not_fit_is_discarded_to_its_end_and_frees_what_it_held() {
        let mut inbox = Inbox::default();
        let chunk = vec![0; MESSAGE_BYTES_MAX];
        let full = UNFINISHED_BYTES_MAX / MESSAGE_BYTES_MAX;
        for call in 0..full {
            assert_eq!(inbox.take(&piece(call as u64, &chunk, false)), Taken::Unfinished);
        }
        assert_eq!(inbox.take(&piece(99, b"y", false)), Taken::Unfinished);
        assert_eq!(inbox.take(&piece(99, b"z", true)), Taken::Discarded);
        assert_eq!(inbox.take(&piece(0, b"", true)), Taken::Whole(Payload::from(chunk.clone())));
        assert_eq!(inbox.take(&piece(99, b"y", false)), Taken::Unfinished);
        assert_eq!(inbox.take(&piece(99, b"z", true)), Taken::Whole(Payload::from("yz")));
        inbox.forget_ask(1);
        assert_eq!(inbox.bytes, (full - 2) * MESSAGE_BYTES_MAX);
    }

    #[test]
    fn a_message_that_never_ends_is_a_violation() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.take(&piece(1, &vec![0; MESSAGE_BYTES_MAX], false)), Taken::Unfinished);
        assert!(matches!(inbox.take(&piece(1, b"1", false)), Taken::Violation(_)));
    }
}
