//! Certificates: the page that the product is managed with.

pub mod change;
mod connections;
pub mod edit;
pub mod export;
mod fields;
pub mod generate;
pub mod list;
pub mod purge;
pub mod server;
pub mod show;
pub mod upload;

use rookery_proto::security::v1::{Certificate, Clearance, Grant};

use super::{visit::Frame, words};

/// Grants in a row of a table.
const GRANTS_SHOWN: usize = 4;

/// A certificate as pages show it.
pub struct Shown {
    /// The certificate.
    pub it: Certificate,
    /// Milliseconds since 1970 of the page.
    now: i64,
}

impl Shown {
    fn new(it: Certificate, frame: &Frame) -> Self {
        Self { it, now: frame.now() }
    }

    /// The path of its own page.
    #[must_use]
    pub fn path(&self, page: &str) -> String {
        format!("/studio/certificate{page}{}", words::query(&[("t", &self.it.thumbprint)]))
    }

    /// Twelve hexadecimal digits.
    #[must_use]
    pub fn short(&self) -> &str {
        words::short(&self.it.thumbprint)
    }

    /// The clearance in words.
    #[must_use]
    pub fn clearance(&self) -> &'static str {
        words::clearance(self.it.clearance)
    }

    /// The class of the state's tag.
    #[must_use]
    pub fn class(&self) -> &'static str {
        state_class(&self.it.state)
    }

    /// Whether grants say anything: only a User needs them.
    #[must_use]
    pub fn is_user(&self) -> bool {
        self.it.clearance == i32::from(Clearance::User)
    }

    /// A date of it.
    #[must_use]
    pub fn date(&self, unix_ms: &i64) -> String {
        words::date(*unix_ms)
    }

    /// The same, from now.
    #[must_use]
    pub fn relative(&self, unix_ms: &i64) -> String {
        words::relative(*unix_ms, self.now)
    }

    /// The grants that a row shows.
    #[must_use]
    pub fn first_grants(&self) -> &[Grant] {
        self.it.grants.chunks(GRANTS_SHOWN).next().unwrap_or_default()
    }

    /// Grants that a row leaves out.
    #[must_use]
    pub fn more_grants(&self) -> usize {
        self.it.grants.len().saturating_sub(GRANTS_SHOWN)
    }

    /// The access of a grant in words.
    #[must_use]
    pub fn access(&self, grant: &Grant) -> &'static str {
        words::access(grant.access)
    }

    /// Whether the visitor may do to it what operators may do to their like, by the names of the two operations.
    #[must_use]
    pub fn operation<'a>(&self, ordinary: &'a str, administrative: &'a str) -> &'a str {
        let high = [Clearance::ClusterAdmin, Clearance::ClusterNode].map(i32::from);
        if high.contains(&self.it.clearance) { administrative } else { ordinary }
    }
}

/// The class of a state's tag.
#[must_use]
pub fn state_class(state: &str) -> &'static str {
    match state {
        "valid" => "good",
        "expiring" | "not yet valid" => "warn",
        "expired" | "disabled" => "bad",
        _ => "",
    }
}

/// A certificate in PEM (RFC 7468).
fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
