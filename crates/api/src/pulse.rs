//! What the owner of a channel knows of the connection under it: when its other end was last heard; and how the owner
//! breaks it. Not a judge of silence: the owner is.
//!
//! Invariant: what is told is about the connection made last; one that is over is not told of.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncRead;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::io::InspectReader;

type Hear = Box<dyn FnMut(&[u8]) + Send>;

/// A stream whose pulse hears what comes in.
pub(crate) type HeardStream<S> = InspectReader<S, Hear>;

/// The pulse of a channel, whose connections come one after the other. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    connection: Mutex<Connection>,
    /// How often the owner broke a connection.
    broken: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Connection {
    /// Which one it is.
    number: u64,
    /// When its other end was last heard, while it lasts.
    heard_at: Option<Instant>,
}

impl Pulse {
    /// When the other end was last heard; none while there is no connection.
    pub fn heard_at(&self) -> Option<Instant> {
        self.connection().heard_at
    }

    /// Breaks the connection that there is: who waits for an answer on it waits no more.
    pub fn break_off(&self) {
        self.shared.broken.send_modify(|times| *times += 1);
    }

    /// Follows a connection that was just made: `stream`, and what ends when it is to be broken.
    pub(crate) fn follow<S: AsyncRead>(&self, stream: S) -> (HeardStream<S>, impl Future<Output = ()> + Send + use<S>) {
        let mut broken = self.shared.broken.subscribe();
        let number = {
            let mut connection = self.connection();
            *connection = Connection { number: connection.number + 1, heard_at: Some(Instant::now()) };
            connection.number
        };
        let breaking = async move {
            // The stream holds the sender.
            let _change = broken.changed().await;
        };
        let following = Following { pulse: self.clone(), number };
        let hear: Hear = Box::new(move |bytes| {
            if !bytes.is_empty() {
                following.pulse.note(following.number, Some(Instant::now()));
            }
        });
        (InspectReader::new(stream, hear), breaking)
    }

    fn note(&self, number: u64, heard_at: Option<Instant>) {
        let mut connection = self.connection();
        if connection.number == number {
            connection.heard_at = heard_at;
        }
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.shared.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The following of one connection, which ends with it.
struct Following {
    pulse: Pulse,
    number: u64,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.pulse.note(self.number, None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_is_noted_and_what_goes_out_is_not() {
        let pulse = Pulse::default();
        assert_eq!(pulse.heard_at(), None, "nothing is connected");
        let (near, mut far) = tokio::io::duplex(64);
        let (mut stream, _breaking) = pulse.follow(near);
        let made = pulse.heard_at().expect("it is connected");
        tokio::time::advance(Duration::from_secs(2)).await;
        stream.write_all(b"question").await.unwrap();
        assert_eq!(pulse.heard_at(), Some(made));
        far.write_all(b"a").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        assert_eq!(pulse.heard_at(), Some(made + Duration::from_secs(2)));
        drop(stream);
        assert_eq!(pulse.heard_at(), None, "it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_over_says_nothing_of_the_next_one() {
        let pulse = Pulse::default();
        let (first, _) = pulse.follow(tokio::io::empty());
        let (_second, breaking) = pulse.follow(tokio::io::empty());
        drop(first);
        assert!(pulse.heard_at().is_some());
        pulse.break_off();
        breaking.await;
        let (_third, breaking) = pulse.follow(tokio::io::empty());
        let waited = tokio::time::timeout(Duration::from_secs(9), breaking).await;
        assert!(waited.is_err(), "only what was there is broken");
    }
}
