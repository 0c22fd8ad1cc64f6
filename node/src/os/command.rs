//! A secret from a command: its standard output alone, bounded in bytes and time, and never shown.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

/// Most bytes of its standard error that are logged.
const STDERR_BYTES_MAX: u64 = 4 * 1024;
/// Pause between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs a command and gives what it prints; what it says on standard error goes to the log under the name `purpose`.
/// At most `bytes_max` bytes are taken of its output: who asks for one more than is allowed sees that there are too many.
/// It runs in a process group of its own, which ends with it when the time is up.
///
/// # Errors
/// Why there is no output, in words that follow the command's name: it cannot be started, fails, or takes longer than
/// `limit` and is ended then.
pub fn secret_output(
    program: &str,
    arguments: &[String],
    purpose: &'static str,
    bytes_max: usize,
    limit: Duration,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    let (sender, output) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || sender.send(read(stdout, bytes_max)));
    }
    if let Some(stderr) = child.stderr.take() {
        let program = program.to_owned();
        thread::spawn(move || log_lines(&program, purpose, stderr));
    }
    let outcome = wait(&mut child, &output, limit);
    if outcome.is_err() {
        // Already gone, or ended here; either way it is reaped.
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome
}

/// The whole capacity at once, so that no half-read secret is left behind by a growing buffer.
fn read(stdout: impl Read, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::with_capacity(bytes_max));
    stdout.take(bytes_max as u64).read_to_end(&mut content)?;
    Ok(content)
}

/// Waits for the output and for a successful end, until the time is up.
fn wait(
    child: &mut Child,
    output: &mpsc::Receiver<io::Result<Zeroizing<Vec<u8>>>>,
    limit: Duration,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let until = Instant::now() + limit;
    let late = || format!("took longer than {} s and was ended", limit.as_secs_f32());
    let content = match output.recv_timeout(limit) {
        Ok(content) => content.map_err(|error| format!("cannot be read from: {error}"))?,
        Err(_) => {
            end_group(child);
            return Err(late());
        }
    };
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(content),
            Ok(Some(status)) => return Err(format!("failed: {status}")),
            Ok(None) if Instant::now() < until => thread::sleep(PAUSE),
            Ok(None) => {
                end_group(child);
                return Err(late());
            }
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}

/// Ends a command that was not reaped yet, so that its id is still its own, and all that it started.
fn end_group(child: &Child) {
    // All of them may be gone already.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

fn log_lines(program: &str, purpose: &'static str, stderr: impl Read) {
    let mut text = Vec::new();
    // What was read until a failure is still worth a line.
    let _ = stderr.take(STDERR_BYTES_MAX).read_to_end(&mut text);
    for line in String::from_utf8_lossy(&text).lines() {
        tracing::warn!(program, line = %line.escape_debug(), "{purpose}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_command_prints_in_time_and_ends_well() {
        let check = |script: &str, expected: Result<&str, &str>| {
            let arguments = ["-c", script].map(str::to_owned);
            let limit = Duration::from_millis(500);
            let got = secret_output("sh", &arguments, "a test's command", 8, limit);
            let got = got.map(|content| String::from_utf8_lossy(&content).into_owned());
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
                (got, expected) => unreachable!("{script}: {got:?}, expected {expected:?}"),
            }
        };
        check("printf abc; echo words >&2", Ok("abc"));
        check("printf 0123456789", Ok("01234567"));
        check("printf abc; exit 3", Err("failed"));
        check("printf secret; exec sleep 5", Err("took longer"));
        check("kill -9 $$", Err("failed"));
        // What it started ends with it.
        let folder = tempfile::tempdir().unwrap();
        let late = folder.path().join("late");
        let script = format!("(sleep 1; touch {}) & exec sleep 5", late.display());
        check(&script, Err("took longer"));
        thread::sleep(Duration::from_millis(1200));
        assert!(!late.exists());
        let none = secret_output("/nowhere/at/all", &[], "none", 8, Duration::from_secs(1));
        assert!(none.is_err_and(|why| why.contains("cannot be started")));
    }
}
