//! The files of RocksDB, encrypted: the Rust half of `env_shim.cc`, and the one other place that needs unsafe code,
//! a snapshot that owns its database.
//!
//! Every file that RocksDB opens through this environment begins with a header of [`crypto::FileCipher`] and is a
//! keystream from there on: write-ahead logs, tables, manifests, options, `CURRENT`, `IDENTITY`. RocksDB's own text
//! log would bypass it and goes to the log of the process instead (`rocks.rs`); `LOCK` is empty.

#![allow(unsafe_code)] // The C++ interface of RocksDB; each block says why it is sound.

use std::{
    ffi::{c_char, c_int, c_void},
    sync::Arc,
};

use rocksdb::{DB, Env, SnapshotWithThreadMode};

use crate::crypto::{self, FILE_HEADER_BYTES, FileCipher, FileStream};

/// What `env_shim.cc` knows as `rookery_cipher`.
#[repr(C)]
struct Callbacks {
    context: *mut c_void,
    header_bytes: usize,
    new_header: unsafe extern "C" fn(*mut c_void, *mut u8, usize, *mut c_char, usize) -> c_int,
    open: unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut c_char, usize) -> *mut c_void,
    apply: unsafe extern "C" fn(*const c_void, u64, *mut u8, usize) -> c_int,
    close: unsafe extern "C" fn(*mut c_void),
    release: unsafe extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    fn rookery_encrypting_env(cipher: *const Callbacks) -> *mut librocksdb_sys::rocksdb_env_t;
}

/// An environment whose files are encrypted with this cipher.
pub(super) fn encrypting(cipher: FileCipher) -> Env {
    let callbacks = Callbacks {
        context: Box::into_raw(Box::new(cipher)).cast(),
        header_bytes: FILE_HEADER_BYTES,
        new_header,
        open,
        apply,
        close,
        release,
    };
    // SAFETY: the shim copies the struct, calls `release` once when its last user is gone, and gives an environment
    // that was made with `new`, which is what `rocksdb_env_destroy` deletes.
    unsafe { Env::from_raw(rookery_encrypting_env(&raw const callbacks)) }
}

/// Copies an error's text for the shim, cut to its buffer, with a zero at the end.
///
/// # Safety
/// `reason` is `len` writable bytes.
unsafe fn explain(error: &crypto::Error, reason: *mut c_char, len: usize) {
    let text = error.to_string();
    let Some(room) = len.checked_sub(1) else { return };
    let text = text.as_bytes().get(..room).unwrap_or(text.as_bytes());
    // SAFETY: the text and its zero fit into `len` bytes, and the two buffers are not the same.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), reason, text.len());
        *reason.add(text.len()) = 0;
    }
}

unsafe extern "C" fn new_header(
    context: *mut c_void,
    header: *mut u8,
    len: usize,
    reason: *mut c_char,
    reason_len: usize,
) -> c_int {
    // SAFETY: `context` is the `FileCipher` of `encrypting`, alive until `release`; `header` is `len` bytes that only
    // this call uses; `reason` is `reason_len` bytes.
    unsafe {
        let cipher = &*context.cast::<FileCipher>();
        // RocksDB hands over fresh memory: give it a value before it becomes a slice.
        std::ptr::write_bytes(header, 0, len);
        let header = std::slice::from_raw_parts_mut(header, len);
        let result = match header.try_into() {
            Ok(header) => cipher.new_header(header),
            Err(_) => Err(crypto::Error::NotAuthentic("the header has another length")),
        };
        match result {
            Ok(()) => 0,
            Err(error) => {
                explain(&error, reason, reason_len);
                1
            }
        }
    }
}

unsafe extern "C" fn open(
    context: *mut c_void,
    header: *const u8,
    len: usize,
    reason: *mut c_char,
    reason_len: usize,
) -> *mut c_void {
    // SAFETY: as `new_header`; `header` is `len` bytes that RocksDB has read. An empty one may be a null pointer.
    unsafe {
        let cipher = &*context.cast::<FileCipher>();
        let header = if len == 0 { &[] } else { std::slice::from_raw_parts(header, len) };
        match cipher.open(header) {
            Ok(stream) => Box::into_raw(Box::new(stream)).cast(),
            Err(error) => {
                explain(&error, reason, reason_len);
                std::ptr::null_mut()
            }
        }
    }
}

unsafe extern "C" fn apply(stream: *const c_void, offset: u64, data: *mut u8, len: usize) -> c_int {
    if len == 0 {
        return 0;
    }
    // SAFETY: `stream` is what `open` gave, alive until `close`, and only read; `data` is `len` bytes that only this
    // call uses.
    unsafe {
        let stream = &*stream.cast::<FileStream>();
        c_int::from(stream.apply(offset, std::slice::from_raw_parts_mut(data, len)).is_err())
    }
}

unsafe extern "C" fn close(stream: *mut c_void) {
    // SAFETY: what `open` gave, given back once.
    drop(unsafe { Box::from_raw(stream.cast::<FileStream>()) });
}

unsafe extern "C" fn release(context: *mut c_void) {
    // SAFETY: the box of `encrypting`, given back once.
    drop(unsafe { Box::from_raw(context.cast::<FileCipher>()) });
}

/// A snapshot together with the database that it is of.
pub(super) struct OwnedSnapshot {
    /// Dropped before the database: fields are dropped in their order.
    snapshot: SnapshotWithThreadMode<'static, DB>,
    _database: Arc<DB>,
}

impl OwnedSnapshot {
    /// Of this moment.
    pub(super) fn new(database: Arc<DB>) -> Self {
        // SAFETY: the database does not move (it is behind an Arc) and is dropped after the snapshot. The long
        // lifetime never leaves this struct: `snapshot` gives it out as short as the borrow of `self`.
        let unbound: &'static DB = unsafe { &*Arc::as_ptr(&database) };
        Self { snapshot: unbound.snapshot(), _database: database }
    }

    /// The snapshot.
    pub(super) fn snapshot(&self) -> &SnapshotWithThreadMode<'_, DB> {
        &self.snapshot
    }
}
