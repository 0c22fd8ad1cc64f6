//! What the node writes about itself: events to standard error, as text or as JSON, one line each.

use std::borrow::Cow;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// The name under which the consensus library logs.
const ENGINE: &str = "openraft";

/// Sends the events of this process to standard error. `RUST_LOG` is not read: the configuration decides.
///
/// # Errors
/// The level is refused, or another subscriber is installed already.
pub fn init(log: &Log) -> anyhow::Result<()> {
    use std::io::IsTerminal as _;
    let filter = EnvFilter::try_new(directives(&log.level))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    installed.map_err(|e| anyhow::anyhow!("the log cannot be set up: {e}"))
}

/// openraft warns of every message that an unreachable peer misses, and its handles and heartbeats log each call that
/// comes after a group was stopped besides answering it. It is held to the errors of its core unless the configuration
/// names it; that a peer is lost or back is told once, by the channel.
fn directives(level: &str) -> Cow<'_, str> {
    if level.contains(ENGINE) || matches!(level, "error" | "off") {
        return Cow::Borrowed(level);
    }
    Cow::Owned(format!("{level},{ENGINE}=error,{ENGINE}::raft=off,{ENGINE}::core::heartbeat=off"))
}
