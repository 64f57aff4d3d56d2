//! The result of a queued operation: a future that needs no runtime, and can be waited for by a plain thread too.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::Error;

struct Slot<T> {
    value: Option<Result<T, Error>>,
    waker: Option<Waker>,
}

struct Shared<T> {
    slot: Mutex<Slot<T>>,
    filled: Condvar,
}

/// A result that the store's writer will deliver. Dropping it does not take the operation back.
#[must_use = "a queued operation may fail"]
pub struct Pending<T> {
    shared: Arc<Shared<T>>,
}

/// The writer's end of a [`Pending`]. If it is dropped unfilled, the operation counts as closed.
pub(crate) struct Delivery<T> {
    shared: Arc<Shared<T>>,
    operation: &'static str,
}

/// A pending result of `operation` and the end that delivers it.
pub(crate) fn pending<T>(operation: &'static str) -> (Delivery<T>, Pending<T>) {
    let shared = Arc::new(Shared { slot: Mutex::new(Slot { value: None, waker: None }), filled: Condvar::new() });
    (Delivery { shared: Arc::clone(&shared), operation }, Pending { shared })
}

impl<T> Delivery<T> {
    /// Delivers `result`.
    pub(crate) fn fill(self, result: Result<T, Error>) {
        self.put(result);
    }

    fn put(&self, result: Result<T, Error>) {
        let mut slot = self.shared.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.value.is_none() {
            slot.value = Some(result);
        }
        let waker = slot.waker.take();
        drop(slot);
        self.shared.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Delivery<T> {
    fn drop(&mut self) {
        // A no-op after `fill`: whoever waits has its result, or took it already and waits no more.
        self.put(Err(Error::Closed { operation: self.operation }));
    }
}

impl<T> Pending<T> {
    /// Blocks the calling thread until the result is there. Never call it on a runtime's worker.
    pub fn wait(self) -> Result<T, Error> {
        let mut slot = self.shared.slot.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = slot.value.take() {
                return value;
            }
            slot = self.shared.filled.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.shared.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_reaches_a_waiting_thread() {
        let (delivery, pending) = pending::<u32>("test");
        let waiter = std::thread::spawn(move || pending.wait());
        delivery.fill(Ok(7));
        assert_eq!(waiter.join().unwrap().unwrap(), 7);
    }

    #[test]
    fn a_dropped_delivery_tells_that_the_store_closed() {
        let (delivery, pending) = pending::<u32>("test");
        drop(delivery);
        assert_eq!(pending.wait().unwrap_err().to_string(), "test: the store is closed");
    }
}
