//! The node: puts storage, consensus and edge together and runs until it is told to stop.

use crate::{config::Config, edge};

/// Runs a node until a signal ends it.
///
/// # Errors
/// Why it could not start, or what stopped it.
pub async fn start(config: Config) -> anyhow::Result<()> {
    let stop = edge::server::told_to_stop()?;
    edge::server::run(config, stop).await
}
