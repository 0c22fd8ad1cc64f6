//! Certificates: the page that the product is managed with.
//!
//! | file | what |
//! | --- | --- |
//! | [`list`], `due` | the list, and above it what is to be renewed |
//! | [`show`], `connections` | one of them, with its open connections |
//! | `actions` | what may be done to one of them, before it is tried |
//! | `fields`, `wrong` | what a registration is made of, as a form has it; which field was refused |
//! | [`edit`], `confirm` | changes, and what is confirmed before: exactly what was shown |
//! | [`generate`], [`upload`] | new ones; `once` keeps a form that is sent again from making two |
//! | [`change`], [`purge`] | disable, enable, delete |
//! | [`server`], [`export`] | the nodes' own |

mod actions;
pub mod change;
mod confirm;
mod connections;
mod due;
pub mod edit;
pub mod export;
mod fields;
pub mod generate;
pub mod list;
mod once;
pub mod purge;
pub mod server;
pub mod show;
pub mod upload;
mod wrong;

use rookery_proto::security::v1::{Certificate, Clearance, GetCertificateRequest, Grant};

use super::{answer::Refused, contract::Calls, visit::Frame, words};

/// Grants in a row of a table.
const GRANTS_SHOWN: usize = 4;

/// A certificate as pages show it.
pub struct Shown {
    /// The certificate.
    pub it: Certificate,
    /// Who looks, and when.
    frame: Frame,
    /// Whether a node of the cluster presents it.
    is_a_members: bool,
}

/// A certificate by its thumbprint, for a page of its own; a secondary gives its primary.
async fn found(calls: &Calls, frame: &Frame, thumbprint: &str) -> Result<Shown, Box<Refused>> {
    let asked = GetCertificateRequest { thumbprint: thumbprint.to_owned() };
    let found =
        calls.security().get_certificate(asked).await.map_err(Refused::before_change(frame))?;
    let certificate = found.into_inner().certificate.unwrap_or_default();
    Shown::new(certificate, frame)
        .asked_of_nodes(calls)
        .await
        .map_err(Refused::before_change(frame))
}

impl Shown {
    fn new(it: Certificate, frame: &Frame) -> Self {
        Self { it, frame: frame.clone(), is_a_members: false }
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
        words::relative(*unix_ms, self.frame.now())
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

    /// Further certificates of the entry, counted.
    #[must_use]
    pub fn further(&self) -> String {
        words::several(self.it.secondaries.len() as u64, "further certificate")
    }

    /// The thumbprints of the entry, the primary's first.
    fn thumbprints(&self) -> impl Iterator<Item = &str> {
        let others = self.it.secondaries.iter().map(|it| it.thumbprint.as_str());
        std::iter::once(self.it.thumbprint.as_str()).chain(others)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, path::Path};

    /// The rule of a button that cannot be pressed, for those who see no tooltip.
    #[test]
    fn every_disabled_button_tells_its_reason_in_words() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/studio/templates");
        let macros = fs::read_to_string(folder.join("macros.html")).unwrap();
        let pages = fs::read_dir(folder.join("certificates")).unwrap();
        let pages = pages.map(|it| fs::read_to_string(it.unwrap().path()).unwrap());
        let (mut seen, mut silent) = (0, Vec::new());
        for text in pages.chain([macros]) {
            for button in text.split("<button").skip(1) {
                let button = button.split("</button>").next().unwrap_or_default();
                if button.contains(" disabled title=") {
                    seen += 1;
                    let tells = button
                        .split_once("class=\"hidden\"")
                        .is_some_and(|(_, it)| it.contains("why"));
                    silent.extend((!tells).then(|| button.to_owned()));
                }
            }
        }
        assert!(seen >= 6, "only {seen} buttons were found");
        assert!(silent.is_empty(), "{silent:#?}");
    }
}
