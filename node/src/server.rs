//! The node: puts storage, consensus and edge together and runs until it is told to stop.

use crate::config::Config;

/// Runs a node until a signal ends it.
///
/// # Errors
/// Why it could not start, or what stopped it.
#[allow(clippy::unused_async)] // The assembly awaits.
pub async fn start(config: Config) -> anyhow::Result<()> {
    // ASSEMBLY: the one place where the layers meet; nothing above it needs to change.
    anyhow::bail!("this build of node {:?} holds no server", config.node.name)
}
