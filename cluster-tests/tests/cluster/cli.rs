//! Sessions at a terminal, as golden files: what was typed, what came back, and the exit code.
//!
//! ```text
//! # a comment
//! $ rookery doc get sales nothing        typed; run by sh in a folder that holds admin.zip
//! there is …                             standard output
//! 2> error: …                            standard error
//! [exit 5]                               unless 0
//! ```
//!
//! What differs from run to run is masked: thumbprints, UUIDs, times, addresses, log indexes. `UPDATE_GOLDEN=1` writes the answers.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use cluster_tests::{binary, cluster::Cluster, golden};
use tokio::process::Command;

const COMMAND_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn sessions_at_a_terminal_go_as_written() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let mut problems = Vec::new();
    for name in ["first-steps", "certificates", "documents", "cluster"] {
        let folder = cluster.folder().join(name);
        std::fs::create_dir(&folder)?;
        std::fs::copy(&cluster.package, folder.join("admin.zip"))?;
        let file = format!("sessions/{name}.session");
        let script = std::fs::read_to_string(golden::path(&file))?;
        let played = play(&cluster, &folder, &script).await.with_context(|| file.clone())?;
        if let Err(problem) = golden::check(&file, &played) {
            problems.push(problem.to_string());
        }
    }
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("\n\n"));
    cluster.same_state().await?;
    cluster.finish().await
}

/// Runs each command of a script and writes the script anew with the answers of today.
async fn play(cluster: &Cluster, folder: &Path, script: &str) -> Result<String> {
    let mut played = String::new();
    for line in script.lines() {
        if line.starts_with('#') || (line.is_empty() && !played.ends_with("\n\n")) {
            writeln!(played, "{line}")?;
        }
        let Some(command) = line.strip_prefix("$ ") else { continue };
        writeln!(played, "{line}")?;
        let (code, stdout, stderr) = shell(folder, command).await?;
        for line in mask(cluster, folder, &stdout).lines() {
            writeln!(played, "{}", revisionless(line.trim_end()))?;
        }
        for line in mask(cluster, folder, &stderr).lines() {
            writeln!(played, "{}", format!("2> {line}").trim_end())?;
        }
        if code != 0 {
            writeln!(played, "[exit {code}]")?;
        }
    }
    Ok(played)
}

async fn shell(folder: &Path, line: &str) -> Result<(i32, String, String)> {
    let binary = binary::path()?;
    let bin = binary.parent().context("the binary stands in a folder")?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    // The name by which people type it, whatever the binary of this run is called.
    let function = format!("rookery() {{ '{}' \"$@\"; }}\n{line}", binary.display());
    let mut command = Command::new("sh");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROOKERY_") {
            command.env_remove(name);
        }
    }
    command
        .args(["-c", &function])
        .current_dir(folder)
        .env("PATH", path)
        .env("ROOKERY_CONFIG", folder.join("config"))
        .env("NO_COLOR", "1")
        .env("LC_ALL", "C.UTF-8")
        .env("COLUMNS", "200")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(COMMAND_LIMIT, command.output())
        .await
        .with_context(|| format!("{line:?} did not end"))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
}

/// Replaces what differs from run to run by a word of the same kind.
fn mask(cluster: &Cluster, folder: &Path, text: &str) -> String {
    let mut text = text.replace(&folder.display().to_string(), "[folder]");
    for node in &cluster.nodes {
        for (address, kind) in [
            (node.addresses.client, "client"),
            (node.addresses.peer, "peer"),
            (node.addresses.ops, "ops"),
        ] {
            text = text.replace(&address.to_string(), &format!("[{}:{kind}]", node.name));
        }
    }
    let mut masked = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '+' | '_') {
            word.push(c);
            continue;
        }
        masked.push_str(&masked_word(&word));
        masked.push(c);
        word.clear();
    }
    masked.truncate(masked.len() - 1);
    masked
}

/// A revision is a log index, which an election moves.
fn revisionless(line: &str) -> String {
    for field in ["revision ", "applied_index "] {
        match line.split_once(field) {
            Some((name, _)) if !name.contains(' ') => return format!("{name}{field}[index]"),
            Some(_) | None => {}
        }
    }
    line.to_owned()
}

fn masked_word(word: &str) -> String {
    let bare = word.trim_end_matches(['.', ':']);
    let hex = bare.bytes().all(|b| b.is_ascii_hexdigit());
    let dashes = bare.bytes().filter(|b| *b == b'-').count();
    let year = bare.get(..3).is_some_and(|start| start == "202" || start == "203");
    let kind = match bare.len() {
        64 if hex => "[thumbprint]",
        40 if hex => "[sha1]",
        32 if hex => "[hex]",
        12 if hex => "[short]",
        36 if dashes == 4 => "[uuid]",
        16.. if year && bare.contains('T') && dashes >= 2 => "[time]",
        _ => return word.to_owned(),
    };
    format!("{kind}{}", &word[bare.len()..])
}
