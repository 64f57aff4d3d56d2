//! The one actor of a node that other nodes can reach. It takes bytes and gives bytes; what they mean is decided by
//! `message` and answered by the daemon's [`Answerer`].

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use ractor_cluster::RactorClusterMessage;
use tokio::sync::Semaphore;

use fleet_core::{Error, ErrorKind, NodeId};

use super::Answerer;
use super::message::{Request, encode_reply};

/// Scope of the process groups of gateways.
const SCOPE: &str = "fleet.gateway";
/// Questions answered at once; more are refused.
const ANSWERS_MAX: usize = 64;

/// The group whose only member is the gateway of `node`.
pub(super) fn group(node: NodeId) -> (String, String) {
    (SCOPE.to_owned(), node.to_string())
}

/// What a gateway is sent. The name of the variant is part of the wire format.
#[derive(RactorClusterMessage)]
pub(super) enum GatewayMessage {
    /// A question as bytes, answered by bytes.
    #[rpc]
    Ask(Vec<u8>, RpcReplyPort<Vec<u8>>),
}

/// The gateway of one node.
pub(super) struct Gateway {
    pub(super) node: NodeId,
    pub(super) answerer: Arc<dyn Answerer>,
}

impl Actor for Gateway {
    type Msg = GatewayMessage;
    type State = Arc<Semaphore>;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<GatewayMessage>, (): ()) -> Result<Arc<Semaphore>, ActorProcessingErr> {
        let (scope, group) = group(self.node);
        ractor::pg::join_scoped(scope, group, vec![myself.get_cell()]);
        Ok(Arc::new(Semaphore::new(ANSWERS_MAX)))
    }

    async fn handle(
        &self,
        _myself: ActorRef<GatewayMessage>,
        message: GatewayMessage,
        room: &mut Arc<Semaphore>,
    ) -> Result<(), ActorProcessingErr> {
        let GatewayMessage::Ask(bytes, reply) = message;
        let Ok(permit) = Arc::clone(room).try_acquire_owned() else {
            let busy = Error::new(ErrorKind::ResourceExhausted, "answer another node: too many questions at once");
            respond(reply, encode_reply(Err(busy)));
            return Ok(());
        };
        let answerer = Arc::clone(&self.answerer);
        // Apart from the mailbox, so that a slow answer holds up no other; bounded by the permits.
        tokio::spawn(async move {
            let outcome = match Request::decode(&bytes) {
                Ok(request) => answerer.answer(request).await,
                Err(error) => Err(error),
            };
            respond(reply, encode_reply(outcome));
            drop(permit);
        });
        Ok(())
    }
}

fn respond(reply: RpcReplyPort<Vec<u8>>, bytes: Vec<u8>) {
    if reply.send(bytes).is_err() {
        tracing::debug!("whoever asked over a link no longer waits");
    }
}
