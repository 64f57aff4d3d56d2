//! Reaching an address over a network that may just come back: half a second after the first try a second one begins beside
//! it, and whichever ends first decides. Each repeats its first packet only every second or more seldom, so that one alone
//! would sleep while the way is free again.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::task::JoinSet;

/// How long a try has for itself.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// Tries that wait at the same time.
const TRIES_MAX: usize = 2;

/// What the first of the tries that ends has to say. Whoever drops this ends them all.
pub(crate) async fn first_of_tries<T, Try>(begin: impl Fn() -> Try) -> io::Result<T>
where
    T: Send + 'static,
    Try: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut tries = JoinSet::new();
    loop {
        if tries.len() < TRIES_MAX {
            tries.spawn(begin());
        }
        match tokio::time::timeout(TRY_EVERY, tries.join_next()).await {
            Ok(Some(Ok(outcome))) => return outcome,
            Ok(Some(Err(panicked))) => return Err(io::Error::other(panicked)),
            Ok(None) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_way_that_is_free_again_is_found_within_half_a_second() {
        for (free_ms, found_ms) in [(0, 0), (100, 500), (600, 1_000), (1_100, 1_500), (2_600, 3_000)] {
            let began = Instant::now();
            let free_at = began + Duration::from_millis(free_ms);
            // A try as TCP makes it: its first packet again each second.
            let outcome = first_of_tries(move || async move {
                while Instant::now() < free_at {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Ok("connected")
            });
            assert_eq!(outcome.await.unwrap(), "connected");
            assert_eq!(began.elapsed(), Duration::from_millis(found_ms), "free after {free_ms} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_the_answer_and_a_slow_try_may_still_succeed() {
        let began = Instant::now();
        let refused = first_of_tries(|| async { Err::<(), _>(io::Error::from(io::ErrorKind::ConnectionRefused)) });
        assert_eq!(refused.await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(began.elapsed(), Duration::ZERO);
        let slow = first_of_tries(|| async {
            tokio::time::sleep(Duration::from_millis(1_300)).await;
            Ok(())
        });
        slow.await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_millis(1_300), "the first one was not given up for a later one");
    }
}
