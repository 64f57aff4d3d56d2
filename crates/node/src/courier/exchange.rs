//! One letter to one other site: composed from the state, answered, and the answer committed; then the blobs that are
//! missing there. It may break off anywhere: what is not committed here is said again.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use metrics::{Gauge, counter, gauge};

use fleet_core::limits::CHUNK_BYTES;
use fleet_core::{Digest, Error, ErrorKind};
use fleet_replication::command::Moving;
use fleet_store::record::{Content, Payload, PeerSite, Serial};

use super::letter::{Asked, Composed, compose};
use super::pace::Exchanged;
use super::walk::Walk;
use super::wire::{Answer, Ask, Part, decode, encode};
use crate::ports::{Group, SiteTopic, Sites};

/// Most blobs that are sent after one letter; the rest are asked for again.
const BLOBS_PER_LETTER_MAX: usize = 16;
/// Most parts sent of one blob in one go: every chunk of the largest, twice.
const PARTS_MAX: usize = 64;

/// What an exchange works with.
#[derive(Clone)]
pub struct Post {
    /// The group of this site.
    pub group: Arc<dyn Group>,
    /// The way to the other sites.
    pub sites: Arc<dyn Sites>,
    /// This site.
    pub own: PeerSite,
}

impl Post {
    /// A letter to `peer` of what waits behind `walk`.
    pub fn compose(&self, peer: &PeerSite, walk: Walk) -> Result<Composed, Error> {
        let reader = self.group.reader()?;
        compose(&reader, &self.own, peer.group, walk)
            .map_err(|source| Error::new(source.kind(), format!("write to site {}", peer.site)).with_source(source))
    }

    /// Sends `composed` to `peer`, which has been told of the watermark `told`. The watermark that it knows afterwards.
    pub async fn exchange(
        &self,
        peer: &PeerSite,
        told: Serial,
        composed: Composed,
    ) -> Result<(Exchanged, Serial), Error> {
        let (letter, blobs) = (composed.letter, composed.blobs);
        let (watermark, says_nothing) = (letter.watermark, letter.is_empty());
        if says_nothing && watermark <= told {
            return Ok((Exchanged::Nothing, told));
        }
        let _under_way = UnderWay::begin(peer, letter.moves.len());
        let asked = Asked::by(&letter);
        let answer = self.ask(peer, &Ask::Letter(Box::new(letter))).await?;
        let Answer::Letter(mut reply) = answer else { return Err(misunderstood(peer)) };
        let needs = std::mem::take(&mut reply.needs);
        let has_settled = self.commit(asked.committed_by(reply, peer.group)).await?;
        let has_sent = self.send_blobs(peer, &needs, &blobs).await?;
        let exchanged = match (has_settled, has_sent, says_nothing) {
            (true, _, _) => Exchanged::Progress,
            (false, true, _) => Exchanged::Sent,
            (false, false, true) => Exchanged::Nothing,
            (false, false, false) => Exchanged::Later,
        };
        Ok((exchanged, watermark))
    }

    async fn ask(&self, peer: &PeerSite, ask: &Ask) -> Result<Answer, Error> {
        let message = encode(ask)?;
        let bytes = message.as_slice().len() as u64;
        let answer = self.sites.ask(peer.site.clone(), SiteTopic::Courier, message).await?;
        counter!("fleet_courier_sent_bytes_total", "site" => peer.site.to_string()).increment(bytes);
        decode(&answer)
    }

    /// Commits all of `moving`; they ride in few entries. Whether any was taken, so that it is not said again: refusals are
    /// answers that came late, and the state knows better.
    async fn commit(&self, moving: Vec<Moving>) -> Result<bool, Error> {
        let proposed = join_all(moving.into_iter().map(|moving| self.group.propose(moving.into()))).await;
        let mut has_settled = false;
        for outcome in proposed {
            match outcome?.accepted() {
                // Also what changes nothing: a report of the job had settled its move before.
                Ok(_) => has_settled = true,
                Err(refusal) => tracing::debug!(%refusal, "an answer of another site came late"),
            }
        }
        Ok(has_settled)
    }

    /// Sends the blobs of `needs` that the letter named; whether any went.
    async fn send_blobs(
        &self,
        peer: &PeerSite,
        needs: &[Digest],
        named: &BTreeMap<Digest, u64>,
    ) -> Result<bool, Error> {
        let mut has_sent = false;
        let wanted = needs.iter().filter_map(|digest| named.get(digest).map(|length| (*digest, *length)));
        for (digest, length) in wanted.take(BLOBS_PER_LETTER_MAX) {
            let content = match self.group.read_content(Content::Blob { digest, length }).await {
                Ok(content) => content,
                Err(error) => {
                    let error = fleet_core::error::chain(&error);
                    tracing::warn!(%digest, site = %peer.site, error, "a blob for another site cannot be read now");
                    continue;
                }
            };
            has_sent |= self.send_blob(peer, digest, &content).await?;
        }
        Ok(has_sent)
    }

    /// Sends one blob from where the other site has it; whether it has it whole then.
    async fn send_blob(&self, peer: &PeerSite, digest: Digest, content: &Payload) -> Result<bool, Error> {
        let length = content.0.len();
        let mut offset = 0;
        for _ in 0..PARTS_MAX {
            let bytes = Payload(content.0.slice(offset..(offset + CHUNK_BYTES).min(length)));
            let part = Part { digest, length: length as u64, offset: offset as u64, bytes };
            let Answer::Part { have } = self.ask(peer, &Ask::Part(part)).await? else {
                return Err(misunderstood(peer));
            };
            offset = usize::try_from(have).ok().filter(|have| *have <= length).ok_or_else(|| misunderstood(peer))?;
            if offset == length {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Counts a letter, and the moves in it, as under way until it is dropped.
struct UnderWay {
    letters: Gauge,
    moves: (Gauge, f64),
}

impl UnderWay {
    fn begin(peer: &PeerSite, moves: usize) -> Self {
        let site = peer.site.to_string();
        let letters = gauge!("fleet_courier_letters_under_way", "site" => site.clone());
        let moves = (gauge!("fleet_courier_moves_under_way", "site" => site), moves as f64);
        letters.increment(1.0);
        moves.0.increment(moves.1);
        Self { letters, moves }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.letters.decrement(1.0);
        self.moves.0.decrement(self.moves.1);
    }
}

fn misunderstood(peer: &PeerSite) -> Error {
    Error::new(ErrorKind::Internal, format!("read the answer of site {}: it is to something else", peer.site))
}
