//! A block device that fails or stands still on request: nbdkit's memory disk behind FUSE.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::file_system::{self, Kind};
use crate::machine::{missing, not_run, run};

/// Longest time until the device is there.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A device in memory, as a file that can be mounted. Declare it before the file systems on it.
pub struct Device {
    server: Child,
    file: PathBuf,
    folder: TempDir,
}

/// What shall fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// Reads.
    Reads,
    /// Writes, flushes and discards.
    Writes,
}

impl Device {
    /// Starts the device and makes a file system on it; `None`, with the reason told, where this machine cannot.
    ///
    /// # Errors
    /// A program that is there fails.
    pub fn start(fault: &str, kind: Kind) -> Result<Option<Self>> {
        let programs = ["nbdkit", "nbdfuse", "fusermount3", "mount"];
        if let Some(why) = missing(&programs, &["/dev/fuse", "/dev/loop-control"]) {
            not_run(fault, &why);
            return Ok(None);
        }
        let folder = tempfile::Builder::new().prefix("rookery-device-").tempdir()?;
        let file = folder.path().join("device");
        fs::write(&file, b"")?;
        let switch = |name: &str| folder.path().join(name).display().to_string();
        let server = Command::new("nbdfuse")
            .arg(&file)
            .args([
                "--command",
                "nbdkit",
                "-s",
                "--filter=error",
                "--filter=pause",
                "memory",
                "320M",
            ])
            .arg(format!("pause-control={}", switch("pause")))
            .args(["error=EIO", "error-pread-rate=100%", "error-pwrite-rate=100%"])
            .args(["error-trim-rate=100%", "error-zero-rate=100%"])
            .arg(format!("error-pread-file={}", switch("reads")))
            .arg(format!("error-pwrite-file={}", switch("writes")))
            .arg(format!("error-trim-file={}", switch("writes")))
            .arg(format!("error-zero-file={}", switch("writes")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("nbdfuse")?;
        let device = Self { server, file, folder };
        let start = Instant::now();
        while fs::metadata(&device.file).map_or(0, |it| it.len()) == 0 {
            if start.elapsed() > START_LIMIT {
                not_run(fault, "nbdfuse serves no file here");
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(20));
        }
        file_system::make(kind, &device.file)?;
        Ok(Some(device))
    }

    /// The file that can be mounted.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Has everything of this kind fail from now on (EIO), or not any more.
    ///
    /// # Errors
    /// The switch cannot be made.
    pub fn fail(&self, what: Failing, failing: bool) -> Result<()> {
        let switch = self.folder.path().join(match what {
            Failing::Reads => "reads",
            Failing::Writes => "writes",
        });
        match failing {
            true => Ok(fs::write(switch, b"")?),
            false => Ok(fs::remove_file(switch)?),
        }
    }

    /// Has every request wait until [`Device::resume`].
    ///
    /// # Errors
    /// The device does not hear.
    pub fn pause(&self) -> Result<()> {
        self.command(b'p')
    }

    /// Lets the requests go on.
    ///
    /// # Errors
    /// The device does not hear.
    pub fn resume(&self) -> Result<()> {
        self.command(b'r')
    }

    fn command(&self, letter: u8) -> Result<()> {
        let mut socket = UnixStream::connect(self.folder.path().join("pause"))?;
        socket.set_read_timeout(Some(START_LIMIT))?;
        socket.write_all(&[letter])?;
        let mut answer = [0];
        socket.read_exact(&mut answer)?;
        let said = char::from(answer[0]);
        anyhow::ensure!(said == char::from(letter.to_ascii_uppercase()), "it said {said:?}");
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // A device that stands still would keep its own unmount waiting.
        let _ = self.resume();
        if run("fusermount3", &["-u", &self.file.display().to_string()]).is_err() {
            let _ = run("fusermount3", &["-u", "-z", &self.file.display().to_string()]);
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
    }
}
