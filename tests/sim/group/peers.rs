//! What nodes of the group ask and answer each other.

use std::time::Duration;

use fleet_core::{BootInstant, NodeId};
use fleet_replication::PollAnswer;
use fleet_replication::contact::Reign;

use super::{Call, GroupPart, log_id};
use crate::consensus::{Input, Request, Response};
use crate::message::{Ask, Message, Said, Step};

impl GroupPart {
    pub(super) fn call_log(&mut self, step: &mut Step<'_>, to: NodeId, request: Request, round: Option<u64>) {
        let is_append = matches!(request, Request::Append { .. } | Request::Install { .. });
        let call = self.call(step, to, Ask::Log(request), round, is_append);
        if is_append && round.is_none() {
            self.consensus.called(to, call, step.now);
        }
    }

    pub(super) fn call(
        &mut self,
        step: &mut Step<'_>,
        to: NodeId,
        ask: Ask,
        round: Option<u64>,
        is_append: bool,
    ) -> u64 {
        let call = self.number();
        let term = self.consensus.vote.term;
        self.calls.insert(call, Call { to, term, sent_at: step.now, round, is_append });
        step.send(to, Message::Ask { from: self.node, run: self.run, call, ask });
        call
    }

    /// Another node asks.
    pub(crate) fn asked(&mut self, step: &mut Step<'_>, from: NodeId, run: u64, call: u64, ask: Ask) {
        let said = match ask {
            Ask::Log(request) => {
                if let Request::Append { term, .. } | Request::Install { term, .. } = &request {
                    let reign = Reign { term: *term, run, node: from };
                    if self.contact.forbids(reign).is_some() {
                        return step.send(from, Message::Said { from: self.node, run, call, said: Said::Refused });
                    }
                }
                return self.take(step, Input::Request { from, call, run, request });
            }
            Ask::Poll => Said::Poll(self.poll_answer(step)),
            Ask::Takeover { term } => self.take_over(step, Reign { term, run, node: from }),
        };
        step.send(from, Message::Said { from: self.node, run, call, said });
    }

    fn poll_answer(&self, step: &Step<'_>) -> PollAnswer {
        let heard = self.contact.last_heard().map(|(_, at)| at);
        let since = heard.map_or(self.contact.started_at(), |at| at.max(self.contact.started_at()));
        let silence_ms = u64::try_from(step.now.saturating_since(since).as_millis()).unwrap_or(u64::MAX);
        PollAnswer { silence_ms, last_log: log_id(self.consensus.last()), leads: self.is_followed }
    }

    fn take_over(&mut self, step: &Step<'_>, reign: Reign) -> Said {
        if self.is_busy || self.consensus.vote.term < reign.term {
            return Said::Refused;
        }
        if self.serving.is_some_and(|term| term < reign.term) {
            self.contact.stopped_leading(step.now);
        }
        match self.contact.take_over(reign) {
            Some(at) => {
                let ago = step.now.saturating_since(at);
                Said::Takeover { ago_us: u64::try_from(ago.as_micros()).unwrap_or(u64::MAX) }
            }
            None => Said::Refused,
        }
    }

    /// Another node answers.
    pub(crate) fn answered(&mut self, step: &mut Step<'_>, from: NodeId, call: u64, said: Said) {
        let Some(known) = self.calls.remove(&call).filter(|known| known.to == from) else { return };
        match said {
            Said::Log(response) => {
                let follows = matches!(response, Response::Appended(_) | Response::Conflict(_));
                if known.is_append && follows {
                    self.acknowledgements.note(from, known.term, known.sent_at);
                }
                if let (Some(round), true) = (known.round, follows) {
                    let effects = self.consensus.followed(round, from);
                    return self.release(step, effects);
                }
                let is_late = known.term != self.consensus.vote.term && !matches!(response, Response::Higher(_));
                if !is_late {
                    self.take(step, Input::Response { from, call, response });
                }
            }
            Said::Poll(answer) => {
                if let Some(poll) = self.poll.as_mut().filter(|poll| poll.calls.contains(&call)) {
                    poll.answers.insert(from, answer);
                    self.judge_poll(step);
                }
            }
            Said::Takeover { ago_us } => {
                if let Some(takeover) = self.takeover.as_mut().filter(|takeover| takeover.calls.contains(&call)) {
                    let at = step.now.0.saturating_sub(Duration::from_micros(ago_us));
                    takeover.reports.insert(from, BootInstant(at));
                    self.judge_takeover();
                }
            }
            Said::Refused => {}
        }
    }
}
