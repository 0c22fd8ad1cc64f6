//! A browser as people have it: Debian's headless Chromium, driven through chromedriver (W3C WebDriver), with client
//! certificates in an NSS store of its own.
//!
//! ```text
//! Profile   a temporary HOME with .pki/nssdb: the cluster's authority, at most one certificate; downloads
//!   └ Browser   chromedriver with that HOME, and the Chromium that it starts; both gone when it is dropped
//!       └ look    what a script finds wrong with the page that is shown
//! Site      the same pages without a browser: HTTPS with a client certificate, for walks over hundreds of them
//! Html      what such a page shows: its words, links, buttons and forms
//! ```
//!
//! Chromium asks which certificate to send unless a policy of the machine says so ([`policy`]); with one certificate a
//! profile, one profile is one identity. Every wait has a limit.

mod driver;
pub mod html;
mod look;
mod policy;
mod profile;
mod site;

pub use driver::{Browser, NARROW, Size, Theme, WIDE};
pub use html::{Control, Html};
pub use look::Findings;
pub use policy::choose_certificates;
pub use profile::Profile;
pub use site::{Answer, Site};

use std::path::PathBuf;

use crate::machine;

/// The browser.
const CHROMIUM: &str = "/usr/bin/chromium";
/// Its driver.
const CHROMEDRIVER: &str = "/usr/bin/chromedriver";

/// Whether this machine can show pages in a browser; says `NOT RUN` with the reason where it cannot.
#[must_use]
pub fn is_here(what: &str) -> bool {
    let programs = ["chromium", "chromedriver", "certutil", "pk12util", "openssl"];
    let why = machine::missing_program(&programs).or_else(|| {
        choose_certificates().err().map(|error| format!("the policy of Chromium: {error:#}"))
    });
    match why {
        Some(why) => {
            machine::not_run(what, &why);
            false
        }
        None => true,
    }
}

/// Where screenshots go: `studio-screenshots` in the target folder, or in the temporary one.
#[must_use]
pub fn screenshots() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(std::env::temp_dir).join("studio-screenshots")
}
