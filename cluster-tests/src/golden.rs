//! Texts that a reader reviews once and a test compares afterwards.
//!
//! `UPDATE_GOLDEN=1` writes them anew; the difference is then reviewed like code.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// The folder of the golden file or script `name`, inside this crate.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Compares `actual` with the golden file `name`.
///
/// # Errors
/// They differ, with the first lines that do; or the file cannot be read or written.
pub fn check(name: &str, actual: &str) -> Result<()> {
    let path = path(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        return std::fs::write(&path, actual).context("writing a golden file");
    }
    let expected = std::fs::read_to_string(&path)
        .with_context(|| format!("reading the golden file {}", path.display()))?;
    if expected == actual {
        return Ok(());
    }
    let mut differences = Vec::new();
    let (mut old, mut new) = (expected.lines(), actual.lines());
    loop {
        match (old.next(), new.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                differences.push(format!("- {}\n+ {}", a.unwrap_or("(end)"), b.unwrap_or("(end)")));
            }
        }
        if differences.len() == 30 {
            break;
        }
    }
    bail!(
        "{} differs (- expected, + seen); review, then UPDATE_GOLDEN=1 accepts it\n{}",
        path.display(),
        differences.join("\n")
    )
}
