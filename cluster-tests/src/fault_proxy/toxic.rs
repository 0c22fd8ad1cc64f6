//! What can be done to a link, in the words of the HTTP interface.

use serde::{Deserialize, Serialize};

/// The direction of a link, seen from the client of the proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// From the client to the server.
    Upstream,
    /// From the server to the client.
    #[default]
    Downstream,
}

/// What a toxic does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Delays data by `latency` ± `jitter` milliseconds.
    Latency,
    /// Lets `rate` KB a second through.
    Bandwidth,
    /// Delays the close of the connection by `delay` milliseconds.
    SlowClose,
    /// Lets nothing through, and closes after `timeout` milliseconds; 0: never.
    Timeout,
    /// Resets the connection after `timeout` milliseconds.
    ResetPeer,
    /// Cuts data into pieces of `average_size` ± `size_variation` bytes, `delay` microseconds apart.
    Slicer,
    /// Closes the connection once `bytes` bytes have passed.
    LimitData,
}

/// The numbers of a toxic; those that its kind does not name are 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attributes {
    /// Milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub latency: u64,
    /// Milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub jitter: u64,
    /// KB a second.
    #[serde(skip_serializing_if = "is_zero")]
    pub rate: u64,
    /// Milliseconds for `slow_close`, microseconds for `slicer`.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay: u64,
    /// Milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// Bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub average_size: u64,
    /// Bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_variation: u64,
    /// Bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A toxic on one direction of a proxy's connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Toxic {
    /// Unique in its proxy; `<type>_<stream>` where none is given.
    #[serde(default)]
    pub name: String,
    /// What it does.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Which direction it acts on.
    #[serde(default)]
    pub stream: Stream,
    /// The chance that a link gets it, from 0 to 1.
    #[serde(default = "certain")]
    pub toxicity: f32,
    /// Its numbers.
    #[serde(default)]
    pub attributes: Attributes,
}

fn certain() -> f32 {
    1.0
}

impl Toxic {
    /// A toxic that every link gets.
    #[must_use]
    pub fn new(kind: Kind, stream: Stream, attributes: Attributes) -> Self {
        Self { name: String::new(), kind, stream, toxicity: certain(), attributes }.named()
    }

    /// The toxic with a name, where it had none.
    #[must_use]
    pub(super) fn named(mut self) -> Self {
        if self.name.is_empty() {
            self.name = format!("{}_{}", word(&self.kind), word(&self.stream));
        }
        self
    }
}

/// The word that the interface has for it.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
