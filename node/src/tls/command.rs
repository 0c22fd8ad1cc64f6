//! A certificate and its key from a command: its standard output alone, in time, and never shown.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

use super::IdentityError;

/// Longest time that the command may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes that are taken of its output.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;
/// Most bytes of its standard error that are logged.
const STDERR_BYTES_MAX: u64 = 4 * 1024;

/// Runs a command and gives what it prints.
///
/// # Errors
/// It cannot be started, fails, or takes longer than 30 s and is ended then.
pub fn run_for_identity(words: &[String]) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    run(words, TIMEOUT)
}

fn run(words: &[String], limit: Duration) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| unfit("tls.certificate_exec", "is empty"))?;
    let fail = |why: &str| unfit(program, why);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| fail(&format!("cannot be started: {error}")))?;
    let (sender, output) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || sender.send(read(stdout)));
    }
    if let Some(stderr) = child.stderr.take() {
        let program = program.clone();
        thread::spawn(move || log_lines(&program, stderr));
    }
    let outcome = wait(&mut child, &output, limit);
    if outcome.is_err() {
        // Already gone, or ended here; either way it is reaped.
        let _ = child.kill();
        let _ = child.wait();
    }
    outcome.map_err(|why| fail(&why))
}

fn unfit(program: &str, why: &str) -> IdentityError {
    IdentityError::Unfit { from: format!("the command {program}"), why: why.to_owned() }
}

fn read(stdout: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::with_capacity(OUTPUT_BYTES_MAX as usize));
    stdout.take(OUTPUT_BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}

fn wait(
    child: &mut Child,
    output: &mpsc::Receiver<std::io::Result<Zeroizing<Vec<u8>>>>,
    limit: Duration,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let until = Instant::now() + limit;
    let late = || format!("took longer than {} s and was ended", limit.as_secs_f32());
    let content = match output.recv_timeout(limit) {
        Ok(content) => content.map_err(|error| format!("cannot be read from: {error}"))?,
        Err(_) => return Err(late()),
    };
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(content),
            Ok(Some(status)) => return Err(format!("failed: {status}")),
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
            Ok(None) => return Err(late()),
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    }
}

fn log_lines(program: &str, stderr: impl Read) {
    let mut text = Vec::new();
    // What was read until a failure is still worth a line.
    let _ = stderr.take(STDERR_BYTES_MAX).read_to_end(&mut text);
    for line in String::from_utf8_lossy(&text).lines() {
        tracing::warn!(program, line = %line.escape_debug(), "certificate command");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_command_prints_in_time_and_ends_well() {
        let sh = |script: &str| {
            let words = ["sh", "-c", script].map(str::to_owned);
            run(&words, Duration::from_millis(500)).map(|out| String::from_utf8_lossy(&out).into())
        };
        let check = |script: &str, expected: Result<&str, &str>| {
            let got: Result<String, IdentityError> = sh(script);
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                (Err(got), Err(part)) => assert!(got.to_string().contains(part), "{got}"),
                (got, expected) => unreachable!("{script}: {got:?}, expected {expected:?}"),
            }
        };
        check("printf abc; echo words >&2", Ok("abc"));
        check("printf abc; exit 3", Err("failed"));
        check("printf secret; exec sleep 5", Err("took longer"));
        check("kill -9 $$", Err("failed"));
        let none = run(&["/nowhere/at/all".to_owned()], Duration::from_secs(1)).unwrap_err();
        assert!(none.to_string().contains("cannot be started"));
        assert!(run(&[], Duration::from_secs(1)).is_err());
    }
}
