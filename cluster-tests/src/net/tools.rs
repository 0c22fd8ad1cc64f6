//! The programs that make networks, and what they said where they failed.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

/// Runs a program to its end.
pub(super) fn tool(program: &str, arguments: &[&str]) -> Result<()> {
    output(program, arguments).map(drop)
}

/// Runs a program to its end and gives what it printed.
pub(super) fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "`{program} {}`: {}: {}",
        arguments.join(" "),
        output.status,
        said.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `ip`, of iproute2.
pub(super) fn ip(arguments: &[&str]) -> Result<()> {
    tool("ip", arguments)
}

/// Runs a command in a network namespace, by its file.
pub(super) fn nsenter(namespace: &str, command: &[&str]) -> Result<()> {
    let net = format!("--net={namespace}");
    tool("nsenter", &[&[net.as_str(), "--"], command].concat())
}
