//! File systems of a test's own, mounted below a folder that is unmounted and removed with it.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::machine::{missing, not_run, run};

/// Size of a file system; the image is sparse. xfs takes nothing smaller than 300 MB.
const IMAGE_MEGABYTES: u32 = 320;

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext4 as mkfs makes it: data ordered before the journal.
    Ext4,
    /// xfs as mkfs makes it.
    Xfs,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        })
    }
}

/// A folder with mounted file systems. Declare it before the cluster, so that it goes after it.
pub struct Disks {
    disks: Vec<Disk>,
    folder: TempDir,
}

/// One file system and the place where it is mounted.
pub struct Disk {
    point: PathBuf,
    /// What is mounted: an image or a device; tmpfs has none.
    source: Option<PathBuf>,
}

impl Disks {
    /// `count` new file systems on images in a folder of their own; `None`, with the reason told, where this machine
    /// has none to give.
    ///
    /// # Errors
    /// A program that is there fails.
    pub fn on_images(fault: &str, kind: Kind, count: usize) -> Result<Option<Self>> {
        let mkfs = format!("mkfs.{kind}");
        let programs = ["mount", "umount", "xfs_io", mkfs.as_str()];
        if let Some(why) = missing(&programs, &["/dev/loop-control"]) {
            not_run(&format!("{fault} on {kind}"), &why);
            return Ok(None);
        }
        let mut disks = Self::empty()?;
        for number in 1..=count {
            let image = disks.folder.path().join(format!("{number}.img"));
            let file = fs::File::create(&image)?;
            file.set_len(u64::from(IMAGE_MEGABYTES) << 20)?;
            make(kind, &image)?;
            if let Err(error) = disks.add(&image) {
                // A container may have the loop devices and not the right to mount.
                not_run(&format!("{fault} on {kind}"), &format!("{error:#}"));
                return Ok(None);
            }
        }
        Ok(Some(disks))
    }

    /// One tmpfs of `megabytes` for each of `count` nodes; `None` as in [`Disks::on_images`].
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn in_memory(fault: &str, megabytes: u32, count: usize) -> Result<Option<Self>> {
        if let Some(why) = missing(&["mount", "umount"], &[]) {
            not_run(fault, &why);
            return Ok(None);
        }
        let mut disks = Self::empty()?;
        for _ in 0..count {
            let disk = Disk { point: disks.next_point()?, source: None };
            let (size, point) = (format!("size={megabytes}m,mode=0755"), disk.text());
            if let Err(error) = run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &point]) {
                not_run(fault, &format!("{error:#}"));
                return Ok(None);
            }
            disks.disks.push(disk);
        }
        Ok(Some(disks))
    }

    /// A folder without file systems.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn empty() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rookery-disks-").tempdir()?;
        Ok(Self { disks: Vec::new(), folder })
    }

    /// Mounts the file system of an image or device; gives its number.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn add(&mut self, source: &Path) -> Result<usize> {
        let disk = Disk { point: self.next_point()?, source: Some(source.to_owned()) };
        disk.mount()?;
        self.disks.push(disk);
        Ok(self.disks.len() - 1)
    }

    fn next_point(&self) -> Result<PathBuf> {
        let point = self.folder.path().join(format!("disk{}", self.disks.len() + 1));
        fs::create_dir_all(&point)?;
        Ok(point)
    }

    /// One of them.
    #[must_use]
    pub fn disk(&self, number: usize) -> &Disk {
        &self.disks[number]
    }

    /// Cuts the power of all of them at once: what is neither fsynced nor in the journal is gone.
    ///
    /// # Errors
    /// The file system does not shut down.
    pub fn cut(&self) -> Result<()> {
        let mut cuts = Vec::new();
        for disk in &self.disks {
            // Without `-f`: the journal in memory is dropped too.
            let mut command = Command::new("xfs_io");
            command.args(["-x", "-c", "shutdown"]).arg(&disk.point).stdin(Stdio::null());
            cuts.push(command.spawn().context("xfs_io")?);
        }
        for mut cut in cuts {
            let status = cut.wait()?;
            anyhow::ensure!(status.success(), "xfs_io shutdown: {status}");
        }
        Ok(())
    }

    /// Unmounts and mounts all, which replays their journals; nothing may use them.
    ///
    /// # Errors
    /// One is in use, or cannot be mounted.
    pub fn replay(&self) -> Result<()> {
        self.disks.iter().try_for_each(Disk::replay)
    }
}

/// Makes a file system on an image or device.
///
/// # Errors
/// mkfs fails.
pub fn make(kind: Kind, on: &Path) -> Result<()> {
    let on = on.display().to_string();
    run(&format!("mkfs.{kind}"), &["-q", &on]).map(drop)
}

impl Disk {
    /// Where it is mounted.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Where a node may keep its data on it.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.point.join("data")
    }

    fn text(&self) -> String {
        self.point.display().to_string()
    }

    fn mount(&self) -> Result<()> {
        let source = self.source.as_ref().context("a tmpfs is mounted once")?;
        run("mount", &["-o", "loop", &source.display().to_string(), &self.text()]).map(drop)
    }

    /// Unmounts and mounts it.
    ///
    /// # Errors
    /// It is in use, or cannot be mounted.
    pub fn replay(&self) -> Result<()> {
        run("umount", &[&self.text()])?;
        self.mount()
    }

    /// Makes it read-only under open files, as ext4 does by itself after an error.
    ///
    /// # Errors
    /// mount fails; only ext4 knows this.
    pub fn abort(&self) -> Result<()> {
        run("mount", &["-o", "remount,abort", &self.text()]).map(drop)
    }

    /// Free bytes.
    ///
    /// # Errors
    /// `df` fails.
    pub fn free(&self) -> Result<u64> {
        let text = run("df", &["--output=avail", "-B1", &self.text()])?;
        text.lines().nth(1).and_then(|line| line.trim().parse().ok()).context("what df prints")
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for disk in &self.disks {
            let point = disk.text();
            if run("umount", &[&point]).is_err() {
                // Lazily: a process that is just dying may hold it; the folder is empty to everybody else.
                let _ = run("umount", &["-l", &point]);
            }
        }
    }
}
