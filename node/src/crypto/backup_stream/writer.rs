//! Writes a stream: what is written is sealed chunk by chunk, and is a backup only once it was finished.

use std::io::{self, Write};

use zeroize::Zeroizing;

use super::{
    BackupError, BackupHeader, BackupKey, ChainId, Position, TAG_BYTES, WholeBackup, nonce,
    random_bytes,
};
use crate::{
    crypto::{SecretKey, seal},
    names::DatabaseId,
};

/// Encrypts what is written to it into `out`, with one chunk in memory.
///
/// A stream that is dropped before [`BackupWriter::finish`] has no last chunk, and every reader refuses its end.
/// `flush` passes on to `out` and never cuts a chunk short: what the buffer holds is written with its chunk.
pub struct BackupWriter<W: Write> {
    out: W,
    key: SecretKey,
    header: BackupHeader,
    /// Content of the chunk under way; one that is full waits until it is known whether it is the last.
    buffer: Zeroizing<Vec<u8>>,
    chunk: u64,
    failed: Option<String>,
}

impl<W: Write> BackupWriter<W> {
    /// Begins a full backup of a database, and with it a chain.
    ///
    /// # Errors
    /// [`BackupError::ChunkBytes`], [`BackupError::Random`], and what `out` answers to the header.
    pub fn full(
        out: W,
        key: &BackupKey,
        database: DatabaseId,
        chunk_bytes: usize,
    ) -> io::Result<Self> {
        let at = Position::Full(database, ChainId(random_bytes()?));
        Self::begin(out, key, &at, chunk_bytes, random_bytes()?)
    }

    /// Begins the increment that follows a backup of the same chain. Its key may be another one.
    ///
    /// # Errors
    /// As [`BackupWriter::full`].
    pub fn after(
        out: W,
        key: &BackupKey,
        previous: &WholeBackup,
        chunk_bytes: usize,
    ) -> io::Result<Self> {
        Self::begin(out, key, &Position::After(previous), chunk_bytes, random_bytes()?)
    }

    pub(super) fn begin(
        mut out: W,
        key: &BackupKey,
        at: &Position<'_>,
        chunk_bytes: usize,
        salt: [u8; 32],
    ) -> io::Result<Self> {
        let header = BackupHeader::new(key, at, chunk_bytes, salt)?;
        out.write_all(&header.encode())?;
        let key = header.derive(key, "rookery backup v1 chunks");
        // Reserved at once, so that no content is moved and left behind.
        let buffer = Zeroizing::new(Vec::with_capacity(chunk_bytes + TAG_BYTES));
        Ok(Self { out, key, header, buffer, chunk: 0, failed: None })
    }

    /// The stream's header.
    #[must_use]
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// Writes the last chunk and flushes; only now the stream is a backup. Gives `out` back, to be fsynced, and what the
    /// next increment follows.
    ///
    /// # Errors
    /// What `out` answers; the stream is none then.
    pub fn finish(mut self) -> io::Result<(W, WholeBackup)> {
        self.usable()?;
        self.put_chunk(true)?;
        self.out.flush()?;
        Ok((self.out, WholeBackup::new(self.header)))
    }

    fn usable(&self) -> io::Result<()> {
        self.failed.clone().map_or(Ok(()), |why| Err(BackupError::Failed(why).into()))
    }

    fn put_chunk(&mut self, last: bool) -> io::Result<()> {
        let nonce = nonce(self.chunk, last);
        let tag = seal::encrypt(self.key.expose(), nonce, &[], &mut self.buffer)
            .map_err(|_| BackupError::Chunk(self.chunk))?;
        self.buffer.extend_from_slice(&tag);
        self.chunk = self.chunk.checked_add(1).ok_or(BackupError::Chunk(self.chunk))?;
        let written = self.out.write_all(&self.buffer);
        self.buffer.clear();
        written
    }
}

impl<W: Write> Write for BackupWriter<W> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        self.usable()?;
        if content.is_empty() {
            return Ok(0);
        }
        if self.buffer.len() == self.header.chunk_bytes {
            // Half a chunk may be out: nothing that is written behind it would be read.
            self.put_chunk(false).inspect_err(|error| self.failed = Some(error.to_string()))?;
        }
        let room = self.header.chunk_bytes - self.buffer.len();
        let (taken, _) = content.split_at(room.min(content.len()));
        self.buffer.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.usable()?;
        self.out.flush()
    }
}
