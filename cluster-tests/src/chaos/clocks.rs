//! Wall clocks that jump: libfaketime before each node, with a file that says how far its clock is off.
//!
//! Only `CLOCK_REALTIME` may be faked. Leases count on the boot clock and timeouts on the monotonic one, and a test that
//! faked those would test another machine. That they are left alone is proven on this machine before the first fault,
//! by [`Clocks::prove`], with the very settings that the nodes get.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// Where Debian keeps the library: the variant for programs with threads.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];
/// How far the proof sets the clock off, in seconds.
const PROOF_SECONDS: i64 = 3600;

/// The clocks of all nodes, a file each.
#[derive(Debug)]
pub struct Clocks {
    library: PathBuf,
    folder: PathBuf,
}

impl Clocks {
    /// Clocks whose files stand in `folder`.
    ///
    /// # Errors
    /// libfaketime is not installed, or it fakes more than the wall clock.
    pub fn new(folder: &Path) -> Result<Self> {
        let found = LIBRARIES.iter().map(PathBuf::from).find(|path| path.is_file());
        let library = found.context("libfaketime is not installed")?;
        fs::create_dir_all(folder)?;
        let clocks = Self { library, folder: folder.to_owned() };
        clocks.prove()?;
        Ok(clocks)
    }

    fn file(&self, clock: &str) -> PathBuf {
        self.folder.join(clock)
    }

    /// What stands before a command whose wall clock shall be this one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn launcher(&self, clock: &str) -> Result<Vec<String>> {
        self.set(clock, 0)?;
        Ok(vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", self.library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file(clock).display()),
            // The wall clock alone.
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            // Read at every look, so that a jump is a jump; no memory shared with the other nodes; files keep their dates.
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DISABLE_SHM=1".to_owned(),
            "NO_FAKE_STAT=1".to_owned(),
        ])
    }

    /// Sets a clock off by that many seconds; running processes see it at their next look.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, clock: &str, seconds: i64) -> Result<()> {
        let file = self.file(clock);
        let next = file.with_extension("next");
        fs::write(&next, format!("{seconds:+}\n"))?;
        fs::rename(&next, &file).context("setting a clock") // Nobody sees half a number.
    }

    /// Proves that the wall clock moves with the file, and that neither the monotonic nor the boot clock does.
    fn prove(&self) -> Result<()> {
        let launcher = self.launcher("proof")?;
        self.set("proof", PROOF_SECONDS)?;
        let faked = read_clocks(&launcher)?;
        let real = read_clocks(&[])?;
        let moved: Vec<f64> = faked.iter().zip(&real).map(|(faked, real)| faked - real).collect();
        let [wall, monotonic, boot] = moved[..] else {
            anyhow::bail!("not three clocks: {moved:?}")
        };
        // The two looks are moments apart.
        let near = |seconds: f64, expected: f64| (seconds - expected).abs() < 30.0;
        anyhow::ensure!(
            near(wall, PROOF_SECONDS as f64),
            "libfaketime moved the wall clock by {wall} s"
        );
        anyhow::ensure!(
            near(monotonic, 0.0) && near(boot, 0.0),
            "libfaketime moved the monotonic clock by {monotonic} s and the boot clock by {boot} s"
        );
        Ok(())
    }
}

/// The wall, monotonic and boot clocks of a process behind `launcher`, in seconds, as the C library tells them.
fn read_clocks(launcher: &[String]) -> Result<Vec<f64>> {
    let script =
        "import time as t; print(t.time(), t.monotonic(), t.clock_gettime(t.CLOCK_BOOTTIME))";
    let mut words: Vec<&str> = launcher.iter().map(String::as_str).collect();
    words.extend(["python3", "-c", script]);
    let output = Command::new(words[0]).args(&words[1..]).output().context("running python3")?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    printed.split_whitespace().map(|word| word.parse().context("a clock")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_wall_clock_is_set() {
        let folder = tempfile::tempdir().unwrap();
        match Clocks::new(folder.path()) {
            Ok(_proven) => {}
            Err(why) if why.to_string().contains("not installed") => {
                crate::machine::not_run("clocks that jump", &format!("{why:#}"));
            }
            Err(why) => panic!("{why:#}"),
        }
    }
}
