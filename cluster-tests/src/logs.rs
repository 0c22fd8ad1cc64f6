//! Reads the logs of nodes: after a test no WARN, ERROR or panic may stand there that the test did not expect.

use std::path::Path;

use anyhow::{Context as _, Result};

/// What nodes say about the machine they are on, whatever the test: its disk is shared with other tests and programs.
const OF_THE_MACHINE: [&str; 1] = ["the disk of this node stands still"];

/// Most lines of one log that are reported.
const REPORTED_MAX: usize = 20;

/// The lines of a log that say that something is wrong and that `expected` does not list, with their line numbers.
///
/// # Errors
/// The log cannot be read.
pub fn unexpected(log: &Path, expected: &[String]) -> Result<Vec<String>> {
    let bytes = std::fs::read(log).with_context(|| format!("reading {}", log.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let known = |line: &str| {
        let mut parts = expected.iter().map(String::as_str).chain(OF_THE_MACHINE);
        parts.any(|part| line.contains(part))
    };
    Ok(text
        .lines()
        .enumerate()
        .filter(|(_, line)| alarming(line) && !known(line))
        .take(REPORTED_MAX)
        .map(|(number, line)| format!("{}:{}: {line}", log.display(), number + 1))
        .collect())
}

/// Whether a line is a warning, an error or a panic, in the text or the JSON format.
fn alarming(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let level = words.nth(1).unwrap_or_default();
    matches!(level, "WARN" | "ERROR")
        || line.contains("\"level\":\"WARN\"")
        || line.contains("\"level\":\"ERROR\"")
        || line.contains("panicked at")
        || line.starts_with("error:")
}

/// The last `count` lines of a log, for the report of a test that failed.
#[must_use]
pub fn tail(log: &Path, count: usize) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn warnings_errors_and_panics_are_reported_unless_expected() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let text = "2026-01-01T00:00:00Z  INFO rookery: a WARN in a message\n\
                    2026-01-01T00:00:00Z  WARN rookery: one\n\
                    2026-01-01T00:00:00Z ERROR rookery: two\n\
                    {\"timestamp\":\"x\",\"level\":\"WARN\",\"fields\":{\"message\":\"three\"}}\n\
                    thread 'main' panicked at src/main.rs:1:1:\n";
        std::fs::write(&log, text).unwrap();
        assert_eq!(unexpected(&log, &[]).unwrap().len(), 4);
        let left = unexpected(&log, &["one".into(), "three".into()]).unwrap();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left[0].ends_with("two") && left[0].contains(":3: "), "{left:?}");
        assert_eq!(tail(&log, 1), "thread 'main' panicked at src/main.rs:1:1:");
    }
}
