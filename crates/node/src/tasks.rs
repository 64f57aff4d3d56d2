//! The small tasks beside actors: a steady tick, one by the wall clock, and following a watched value.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use fleet_core::Clock;
use ractor::{ActorRef, Message};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// Tells `actor` the message of `message` every `period`, until it is gone.
pub(crate) async fn tick<M: Message>(actor: ActorRef<M>, period: Duration, message: impl Fn() -> M) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if actor.cast(message()).is_err() {
            return;
        }
    }
}

/// Tells `actor` the message of `message` whenever the wall clock comes to a multiple of `period`, with its number, until
/// the actor is gone. Nodes whose clocks agree do so together; a clock that is set costs at most one period.
pub(crate) async fn tick_by_clock<M: Message>(
    actor: ActorRef<M>,
    clock: Arc<dyn Clock>,
    period: Duration,
    message: impl Fn(u64) -> M,
) {
    let period_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1);
    loop {
        tokio::time::sleep(Duration::from_millis(period_ms - clock.now().0 % period_ms)).await;
        // The nearest multiple: a sleep ends a little late, and by another clock.
        let number = clock.now().0.saturating_add(period_ms / 2) / period_ms;
        if actor.cast(message(number)).is_err() {
            return;
        }
    }
}

/// Tells `actor` the value now and each later one, until either is gone.
pub(crate) async fn follow<M: Message, T: Clone>(
    actor: ActorRef<M>,
    mut value: watch::Receiver<T>,
    message: impl Fn(T) -> M,
) {
    loop {
        let current = value.borrow_and_update().clone();
        if actor.cast(message(current)).is_err() || value.changed().await.is_err() {
            return;
        }
    }
}

/// Where the present incarnation of an actor is found, whichever its supervisor started last.
#[derive(Debug)]
pub(crate) struct Slot<M> {
    actor: Arc<RwLock<Option<ActorRef<M>>>>,
}

impl<M> Clone for Slot<M> {
    fn clone(&self) -> Self {
        Self { actor: Arc::clone(&self.actor) }
    }
}

impl<M> Default for Slot<M> {
    fn default() -> Self {
        Self { actor: Arc::default() }
    }
}

impl<M: Message> Slot<M> {
    /// `actor` is the present incarnation.
    pub(crate) fn set(&self, actor: ActorRef<M>) {
        *self.actor.write().unwrap_or_else(PoisonError::into_inner) = Some(actor);
    }

    /// The present incarnation, if there is one.
    pub(crate) fn get(&self) -> Option<ActorRef<M>> {
        self.actor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells the present incarnation; `false` if there is none.
    pub(crate) fn tell(&self, message: M) -> bool {
        self.get().is_some_and(|actor| actor.cast(message).is_ok())
    }
}
