//! Checks a recorded history again: what a run left in a file when it found something.
//!
//! `cargo run -p cluster-tests --bin history-check -- FILE [--document ID]`

#![allow(clippy::print_stdout)] // It is there to be read.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use cluster_tests::history::{Gate, History, Verdict, judge};

/// Checks a recorded history.
#[derive(Parser)]
struct Arguments {
    /// JSON lines, as a run wrote them.
    file: PathBuf,
    /// Shows every operation on this document, in the order of their calls.
    #[arg(long)]
    document: Option<String>,
}

fn show(history: &History, id: &str) {
    let mut operations: Vec<_> = history.operations.iter().collect();
    operations.sort_by_key(|operation| operation.call);
    for operation in operations {
        let keys = history.keys_of(operation);
        let is_about = |key: &cluster_tests::history::Key| {
            history.keys.get(key.0 as usize).is_some_and(|info| info.id == id)
        };
        if keys.iter().any(is_about) {
            println!("{operation}");
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let history = History::read(&arguments.file)?;
    if let Some(id) = &arguments.document {
        show(&history, id);
    }
    let verdict = judge(&history, &Gate::default());
    println!("{verdict}");
    Ok(matches!(verdict, Verdict::Passed(_)))
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(9), // Checked and found wanting, as the other commands say.
        Err(error) => {
            println!("{error:?}");
            ExitCode::FAILURE
        }
    }
}
