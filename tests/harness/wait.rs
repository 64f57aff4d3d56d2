//! Waiting for a condition, with a bound and the last state in the message.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Looks until `look` gives `Ok`, at most `bound`.
///
/// # Panics
/// With what `look` said last, once the bound has passed.
pub async fn until<T, Look, Answer>(what: &str, bound: Duration, mut look: Look) -> T
where
    Look: FnMut() -> Answer,
    Answer: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + bound;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(state) => assert!(Instant::now() < deadline, "waited {bound:?} for {what}; last state: {state}"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
