//! A secret from a person: typed at the terminal of this process, and not shown.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Asks at the terminal, whatever standard input is. At most `bytes_max` bytes of a line are taken.
///
/// # Errors
/// There is no terminal, or it cannot be read.
pub fn secret(prompt: &str, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let silent = Silent::new(&terminal)?;
    (&terminal).write_all(format!("{prompt}: ").as_bytes())?;
    let line = read_line(&terminal, bytes_max);
    drop(silent);
    (&terminal).write_all(b"\n")?;
    line
}

/// Byte by byte: what follows the line stays in the terminal. The whole capacity at once, so that no half-read secret is
/// left behind by a growing buffer.
fn read_line(mut from: impl io::Read, bytes_max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(bytes_max));
    let mut byte = Zeroizing::new([0]);
    while from.by_ref().read(byte.as_mut_slice())? == 1 && byte[0] != b'\n' {
        if line.len() == bytes_max {
            return Err(io::Error::other("the line is too long"));
        }
        line.push(byte[0]);
    }
    Ok(line)
}

/// The terminal without echo, until this is dropped.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // A terminal that is gone has nothing to be set back.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_is_read_to_its_end_and_no_further() {
        let mut from: &[u8] = b"first line\nsecond";
        assert_eq!(read_line(&mut from, 10).unwrap().as_slice(), b"first line");
        assert_eq!(from, b"second");
        assert_eq!(read_line(&mut from, 10).unwrap().as_slice(), b"second");
        assert!(read_line(b"eleven long\n".as_slice(), 10).is_err());
    }
}
