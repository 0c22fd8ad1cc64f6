//! Disks that fail: file systems of a test's own, power cuts, damaged folders, errors and stalls.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`file_system`] | ext4 and xfs on loop devices, tmpfs; power cut, remount; nothing stays mounted |
//! | [`device`] | a block device that fails or stands still on request (nbdkit behind FUSE) |
//! | [`load`] | writes and revocations until the power goes, and the proof that what was acknowledged is there |
//! | [`damage`] | changes to the files of a stopped node: flipped bits, cuts, older copies |
//! | [`judge`] | starts a damaged node by itself, and tells refused from whole from wrong |
//!
//! These need root, loop devices, FUSE and the programs that `./dev` installs; [`crate::machine`] says what is lacking.

pub mod damage;
pub mod device;
pub mod file_system;
pub mod judge;
pub mod load;

/// The smallest reserve for full disks, so that small file systems and copies of folders stay small.
pub const SMALL_RESERVE: (&str, &str) = ("storage.reserve_mib", "16");
