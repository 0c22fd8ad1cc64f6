//! What the machine that tests run on can do, and what a test says where it cannot.
//!
//! Where the machine lacks something the test says `NOT RUN: <fault>: <why>`, and leaves the same line in the file that
//! `ROOKERY_NOT_RUN` names, so that the summary of `./dev test` has all of it.

use std::{env, fs::OpenOptions, io::Write as _, path::Path, process::Command, str::FromStr};

use anyhow::{Context as _, Result};

/// Says that this machine cannot inject a fault, and why; a summary counts the lines.
#[allow(clippy::print_stdout)] // Where a test's reader looks.
pub fn not_run(fault: &str, why: &str) {
    let line = format!("NOT RUN: {fault}: {why}");
    println!("{line}");
    let Some(path) = env::var_os("ROOKERY_NOT_RUN") else { return };
    let file = OpenOptions::new().create(true).append(true).open(path);
    if let Ok(mut file) = file {
        // The line was printed; the summary is a convenience.
        let _ = writeln!(file, "{line}");
    }
}

/// A number from the environment, such as `POWER_CUT_ROUNDS`, or what `./dev test` takes.
///
/// # Errors
/// The variable holds something else.
pub fn parameter<T: FromStr>(name: &str, otherwise: T) -> Result<T> {
    match env::var(name) {
        Ok(text) => text.parse().ok().with_context(|| format!("{name} is {text:?}")),
        Err(_) => Ok(otherwise),
    }
}

/// Why faults of this kind cannot be injected here, if so: a missing program, no root, a missing device.
#[must_use]
pub fn missing(programs: &[&str], devices: &[&str]) -> Option<String> {
    let root = Command::new("id").arg("-u").output().is_ok_and(|it| it.stdout == b"0\n");
    if !root {
        return Some("this needs root".to_owned());
    }
    missing_program(programs).or_else(|| {
        let device = devices.iter().find(|device| !Path::new(device).exists())?;
        Some(format!("there is no {device}"))
    })
}

/// Which of these programs is not installed, if one is not.
#[must_use]
pub fn missing_program(programs: &[&str]) -> Option<String> {
    let absent = |program: &&&str| {
        let found = env::var_os("PATH").is_some_and(|path| {
            env::split_paths(&path).any(|folder| folder.join(program).is_file())
        });
        !found
    };
    programs.iter().find(absent).map(|program| format!("there is no program {program}"))
}

/// Runs a program that must succeed.
///
/// # Errors
/// It cannot be started or fails, with what it said.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().context(program.to_owned())?;
    anyhow::ensure!(
        output.status.success(),
        "`{program} {}`: {}: {}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
