//! The policy that has Chromium send a certificate without asking.
//!
//! It counts for the whole machine (Chromium reads it from one folder), so it names loopback addresses alone. It is written
//! once and shared by all tests that run at the same time.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

const FOLDER: &str = "/etc/chromium/policies/managed";
const FILE: &str = "rookery-tests.json";

/// Lets Chromium choose the first certificate of its store for every port of this machine.
///
/// # Errors
/// The folder cannot be written.
pub fn choose_certificates() -> Result<()> {
    let chosen = ["https://127.0.0.1:*", "https://localhost:*"]
        .map(|pattern| serde_json::json!({ "pattern": pattern, "filter": {} }).to_string());
    let policy = serde_json::json!({ "AutoSelectCertificateForUrls": chosen }).to_string();
    let path = Path::new(FOLDER).join(FILE);
    if fs::read_to_string(&path).is_ok_and(|written| written == policy) {
        return Ok(());
    }
    fs::create_dir_all(FOLDER).with_context(|| format!("creating {FOLDER}"))?;
    // Complete under its name at once: another test's browser may read the folder now.
    let draft = Path::new(FOLDER).join(format!("{FILE}.{}", std::process::id()));
    fs::write(&draft, policy).with_context(|| format!("writing {}", draft.display()))?;
    fs::rename(&draft, &path).with_context(|| format!("writing {}", path.display()))
}
