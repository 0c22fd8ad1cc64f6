//! A history as JSON lines: what a run leaves behind when it finds something, to be examined and checked again.

use std::{
    io::{BufRead, Write},
    path::Path,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    finals::NodeState,
    operation::{Key, Operation},
    recorder::{FinalRead, History, KeyInfo, Mode},
};

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Key(KeyInfo),
    Group(Vec<Key>),
    Mode(Mode),
    Operation(Operation),
    Final(FinalRead),
    State(NodeState),
    Lost { reads_dropped: u64, overflowed: u64 },
}

impl History {
    /// Writes the history to a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let file = std::fs::File::create(path).with_context(|| format!("{}", path.display()))?;
        let mut out = std::io::BufWriter::new(file);
        let mut line = |line: Line| -> Result<()> {
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n").context("a history")
        };
        self.keys.iter().try_for_each(|key| line(Line::Key(key.clone())))?;
        self.groups.iter().try_for_each(|group| line(Line::Group(group.clone())))?;
        self.modes.iter().try_for_each(|mode| line(Line::Mode(mode.clone())))?;
        self.operations.iter().try_for_each(|done| line(Line::Operation(done.clone())))?;
        self.finals.iter().try_for_each(|read| line(Line::Final(*read)))?;
        self.states.iter().try_for_each(|state| line(Line::State(state.clone())))?;
        let (reads_dropped, overflowed) = (self.reads_dropped, self.overflowed);
        line(Line::Lost { reads_dropped, overflowed })?;
        out.flush().context("a history")
    }

    /// Reads a history that [`History::write`] wrote.
    ///
    /// # Errors
    /// The file is missing, or a line is none of a history.
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).with_context(|| format!("{}", path.display()))?;
        let mut history = Self::default();
        for (number, line) in (1..).zip(std::io::BufReader::new(file).lines()) {
            let line = serde_json::from_str(&line?).with_context(|| format!("line {number}"))?;
            match line {
                Line::Key(key) => history.keys.push(key),
                Line::Group(group) => history.groups.push(group),
                Line::Mode(mode) => history.modes.push(mode),
                Line::Operation(operation) => history.operations.push(operation),
                Line::Final(read) => history.finals.push(read),
                Line::State(state) => history.states.push(state),
                Line::Lost { reads_dropped, overflowed } => {
                    (history.reads_dropped, history.overflowed) = (reads_dropped, overflowed);
                }
            }
        }
        Ok(history)
    }
}
