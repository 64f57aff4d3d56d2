//! The right to act, as effects see it: a time on the lease clock that its keeper may move forward.
//!
//! Not the lease protocol (that is the robot's); only its end, carried to whatever must stop there.

use std::time::Duration;

use fleet_core::{BootInstant, Clock, SystemClock};
use tokio::sync::watch;

/// Far enough away never to come, near enough that adding to it does not overflow.
const NEVER: BootInstant = BootInstant(Duration::from_secs(u32::MAX as u64 * 64));

/// The reading end: effects begin only while it is live, and end when it ends. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lease {
    end: watch::Receiver<BootInstant>,
}

/// The writing end, kept by whoever renews the lease. If it is dropped, the lease still ends at its last end.
#[derive(Debug)]
pub struct LeaseKeeper {
    end: watch::Sender<BootInstant>,
}

impl Lease {
    /// A lease that ends at `end` unless its keeper renews it.
    pub fn until(end: BootInstant) -> (LeaseKeeper, Self) {
        let (sender, receiver) = watch::channel(end);
        (LeaseKeeper { end: sender }, Self { end: receiver })
    }

    /// A lease whose end is kept elsewhere.
    pub fn watching(end: watch::Receiver<BootInstant>) -> Self {
        Self { end }
    }

    /// A lease that never ends, for a run without a fleet.
    pub fn unlimited() -> Self {
        Self::until(NEVER).1
    }

    /// When it ends, as known now.
    pub fn end(&self) -> BootInstant {
        *self.end.borrow()
    }

    /// Whether acting is still allowed, by the lease clock read now.
    pub fn is_live(&self) -> bool {
        SystemClock.boot_now() < self.end()
    }

    /// Completes once the lease has ended.
    pub async fn ended(&mut self) {
        loop {
            let remaining = self.end.borrow_and_update().saturating_since(SystemClock.boot_now());
            if remaining.is_zero() {
                return;
            }
            // A keeper that is gone renews no more: only the clock is left to wait for.
            tokio::select! {
                () = tokio::time::sleep(remaining) => {}
                Ok(()) = self.end.changed() => {}
            }
        }
    }

    /// Completes with the new end when the keeper moved it; never, if the keeper is gone.
    pub async fn renewed(&mut self) -> BootInstant {
        if self.end.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.end.borrow_and_update()
    }
}

impl LeaseKeeper {
    /// Moves the end to `end` if that is later. A lease that has ended stays ended: a session never revives.
    pub fn renew(&self, end: BootInstant) {
        let now = SystemClock.boot_now();
        self.end.send_if_modified(|current| {
            let renews = *current > now && end > *current;
            if renews {
                *current = end;
            }
            renews
        });
    }

    /// Ends the lease now.
    pub fn end_now(&self) {
        self.end.send_replace(BootInstant::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_future(duration: Duration) -> BootInstant {
        SystemClock.boot_now().saturating_add(duration)
    }

    #[tokio::test]
    async fn a_renewed_lease_ends_at_its_new_end() {
        let start = SystemClock.boot_now();
        let (keeper, mut lease) = Lease::until(in_future(Duration::from_millis(50)));
        keeper.renew(in_future(Duration::from_millis(150)));
        lease.ended().await;
        assert!(SystemClock.boot_now().saturating_since(start) >= Duration::from_millis(150));
        assert!(!lease.is_live());
    }

    #[tokio::test]
    async fn an_ended_lease_does_not_revive() {
        let (keeper, mut lease) = Lease::until(in_future(Duration::from_secs(60)));
        assert!(lease.is_live());
        keeper.end_now();
        keeper.renew(in_future(Duration::from_secs(60)));
        lease.ended().await;
        assert!(!lease.is_live());
    }

    #[tokio::test]
    async fn a_lease_outlives_its_keeper_only_until_its_end() {
        let (keeper, mut lease) = Lease::until(in_future(Duration::from_millis(30)));
        drop(keeper);
        lease.ended().await;
        assert!(Lease::unlimited().is_live());
    }
}
