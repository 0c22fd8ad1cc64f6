//! Disks that fail, one module a kind of fault. One binary, so that it is linked once.
//!
//! How to run the long forms: docs/testing.md, "Disks".
#![allow(clippy::unwrap_used, clippy::panic)] // A test says so with a panic.
#![allow(clippy::print_stdout)] // Figures that a reader wants; shown by nextest in the end.

mod damage;
mod errors;
mod folders;
mod power_cut;
mod processes;
mod stalls;
