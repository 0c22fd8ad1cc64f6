//! Conditions with deadlines: tests wait for something to hold, never for a time to pass.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// Repeats `attempt` until it succeeds; fails with its last error once `limit` has passed.
///
/// # Errors
/// The last error of `attempt`, with `what` and the time waited.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let error = match tokio::time::timeout(left.max(PAUSE), attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("the last attempt had no answer"),
        };
        if start.elapsed() >= limit {
            return Err(error).with_context(|| format!("{what}: not within {limit:?}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
