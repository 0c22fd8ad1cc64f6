//! The contract of Rookery: every message and service that crosses a process or a disk, and no logic.
//!
//! One module an area, as in `proto/rookery/<area>/v1`. `log` is what stands in the Raft log and in the state;
//! it is served by nobody.

#![allow(missing_docs)] // The documentation stands in the .proto files.
#![allow(clippy::all)]

macro_rules! area {
    ($area:ident) => {
        /// Generated from the .proto files of this area.
        pub mod $area {
            /// Version 1 of the area.
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/rookery.", stringify!($area), ".v1.rs"));
            }
        }
    };
}

area!(admin);
area!(audit);
area!(cluster);
area!(database);
area!(document);
area!(log);
area!(monitoring);
area!(peer);
area!(security);

/// The encoded `FileDescriptorSet` of all areas, for reflection and for tests that walk every RPC.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
