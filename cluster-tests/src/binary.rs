//! Finds the `rookery` binary that was built beside the tests, and runs its commands.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

/// Longest time a command of the binary may take in a test.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// The binary: `ROOKERY_BIN`, or `rookery` in the target folder that holds this program.
///
/// # Errors
/// There is none; the error tells how to build it.
pub fn path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ROOKERY_BIN") {
        let path = PathBuf::from(path);
        anyhow::ensure!(path.is_file(), "ROOKERY_BIN names {}, which is no file", path.display());
        return Ok(path);
    }
    let program = std::env::current_exe().context("the path of this program")?;
    let beside = program.ancestors().skip(1).take(2).map(|folder| folder.join("rookery"));
    match beside.into_iter().find(|candidate| candidate.is_file()) {
        Some(path) => Ok(path),
        None => bail!(
            "there is no `rookery` binary beside {}; run `cargo build -p rookery` first, or set ROOKERY_BIN",
            program.display()
        ),
    }
}

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    /// The exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `rookery` with `arguments` in `folder`, with nothing of this process's own ROOKERY_ environment.
///
/// # Errors
/// The binary is missing, or did not end within a minute.
pub async fn run(
    folder: &Path,
    environment: &[(String, String)],
    arguments: &[&str],
) -> Result<Output> {
    let mut command = command()?;
    command.current_dir(folder).args(arguments).envs(environment.iter().cloned());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(COMMAND_LIMIT, command.output())
        .await
        .with_context(|| format!("`rookery {}` did not end in time", arguments.join(" ")))??;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// [`run`], for commands that must succeed; gives their standard output.
///
/// # Errors
/// As [`run`], or an exit code other than 0, with what it printed.
pub async fn succeed(
    folder: &Path,
    environment: &[(String, String)],
    arguments: &[&str],
) -> Result<String> {
    let output = run(folder, environment, arguments).await?;
    anyhow::ensure!(
        output.code == 0,
        "`rookery {}` ended with {}\n{}{}",
        arguments.join(" "),
        output.code,
        output.stdout,
        output.stderr
    );
    Ok(output.stdout)
}

/// A command of the binary whose environment holds nothing that would configure it.
///
/// # Errors
/// The binary is missing.
pub fn command() -> Result<Command> {
    launched(&[])
}

/// [`command`], started by other programs that become it, such as `nsenter`.
///
/// # Errors
/// The binary is missing.
pub fn launched(launcher: &[String]) -> Result<Command> {
    let path = path()?;
    let mut command = match launcher.split_first() {
        None => Command::new(path),
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(path);
            command
        }
    };
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROOKERY_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1");
    Ok(command)
}
