//! Messages of couriers: one version byte, then postcard.

use fleet_core::{Digest, Error, ErrorKind, GroupId, JobId, Timestamp};
use fleet_replication::command::{Report, Submission};
use fleet_store::record::{Content, Payload, Serial, Verdict};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The format that is written.
const FORMAT: u8 = 1;

/// What one courier asks another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Everything that waits, up to a bound.
    Letter(Box<Letter>),
    /// A part of a blob that the answer to a letter asked for.
    Part(Part),
}

/// What waits at one site for another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Letter {
    /// The sender's group.
    pub(super) from: GroupId,
    /// The group it is meant for: a wiped site of the same name must not answer for its old self.
    pub(super) to: GroupId,
    /// Every move before this one is settled.
    pub(super) watermark: Serial,
    /// Definitions that the moves run, each once.
    pub(super) definitions: Vec<(Digest, Content)>,
    /// Jobs to be taken over.
    pub(super) moves: Vec<MovedJob>,
    /// Moves that are not to be accepted any more.
    pub(super) recalls: Vec<Serial>,
    /// Jobs that came by these moves and are to be cancelled.
    pub(super) cancels: Vec<(Serial, JobId)>,
    /// How jobs stand that came from the addressee.
    pub(super) reports: Vec<Report>,
}

impl Letter {
    /// Whether it says anything besides the watermark.
    pub(super) fn is_empty(&self) -> bool {
        self.moves.is_empty() && self.recalls.is_empty() && self.cancels.is_empty() && self.reports.is_empty()
    }
}

/// A job under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct MovedJob {
    /// The move.
    pub(super) number: Serial,
    /// The job's generation by it.
    pub(super) generation: u32,
    /// When the job was submitted.
    pub(super) created_at: Timestamp,
    /// What was asked for, without the definition.
    pub(super) submission: Submission,
}

/// A part of a blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Part {
    /// The blob.
    pub(super) digest: Digest,
    /// Its length, bytes.
    pub(super) length: u64,
    /// Where the part begins.
    pub(super) offset: u64,
    /// The part.
    pub(super) bytes: Payload,
}

/// What a courier answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// To a letter.
    Letter(Reply),
    /// To a part: how many bytes of the blob are there from its beginning.
    Part {
        /// The bytes.
        have: u64,
    },
}

/// The answer to a letter. What it does not name is asked again later.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Reply {
    /// Moves that are decided.
    pub(super) verdicts: Vec<(Serial, Verdict)>,
    /// Moves whose jobs stop.
    pub(super) obeyed: Vec<Serial>,
    /// Reports that are committed.
    pub(super) heard: Vec<Serial>,
    /// Blobs that are missing.
    pub(super) needs: Vec<Digest>,
}

/// `message` as bytes.
pub(super) fn encode(message: &impl Serialize) -> Result<Payload, Error> {
    let bytes = postcard::to_extend(message, vec![FORMAT]);
    bytes
        .map(Payload::from)
        .map_err(|source| Error::new(ErrorKind::Internal, "write a message of the courier").with_source(source))
}

/// The message in `bytes`.
///
/// # Errors
/// `Unsupported` for a format that this program does not know, `InvalidInput` for damage.
pub(super) fn decode<T: DeserializeOwned>(bytes: &Payload) -> Result<T, Error> {
    let damaged = || Error::new(ErrorKind::InvalidInput, "read a message of the courier: it is damaged");
    match bytes.as_slice().split_first() {
        Some((&FORMAT, body)) => match postcard::take_from_bytes(body) {
            Ok((message, [])) => Ok(message),
            Ok(_) => Err(damaged()),
            Err(source) => Err(damaged().with_source(source)),
        },
        Some((format, _)) => {
            let message = format!("read a message of the courier: format {format} is not known");
            Err(Error::new(ErrorKind::Unsupported, message).with_next_step("Update the software of this site."))
        }
        None => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written_and_nothing_else_is() {
        let serial = Serial { epoch: 1, number: 300 };
        let reply = Reply { heard: vec![serial], verdicts: vec![(serial, Verdict::Accepted)], ..Reply::default() };
        let bytes = encode(&Answer::Letter(reply.clone())).unwrap();
        assert_eq!(decode::<Answer>(&bytes).unwrap(), Answer::Letter(reply));
        // What an older site sends must stay readable.
        let kept = [1, 0, 1, 1, 172, 2, 0, 0, 1, 1, 172, 2, 0];
        assert_eq!(bytes.as_slice(), kept);
        let mut other = kept.to_vec();
        other[0] = 2;
        assert_eq!(decode::<Answer>(&Payload::from(other)).unwrap_err().kind, ErrorKind::Unsupported);
        for bad in [vec![], kept[..5].to_vec(), [kept.as_slice(), &[0]].concat()] {
            assert_eq!(decode::<Answer>(&Payload::from(bad)).unwrap_err().kind, ErrorKind::InvalidInput);
        }
    }
}
