//! Reads a stream: gives out what was authenticated, and its end only where the last chunk was.

use std::io::{self, Read};

use zeroize::{Zeroize as _, Zeroizing};

use super::{
    BACKUP_HEADER_BYTES, BackupError, BackupHeader, BackupKey, Expected, NONCE_BYTES, TAG_BYTES,
    nonce,
};
use crate::crypto::{SecretKey, seal};

/// A backup that was written, or read, to its end: what the next increment of its chain follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeBackup(BackupHeader);

impl WholeBackup {
    pub(super) fn new(header: BackupHeader) -> Self {
        Self(header)
    }

    /// The header of it.
    #[must_use]
    pub fn header(&self) -> &BackupHeader {
        &self.0
    }
}

/// Decrypts a stream, with one chunk in memory.
///
/// `read` gives no byte of a chunk before the chunk was authenticated in its place, and answers 0 only after the last
/// chunk, with nothing behind it. After an error it gives nothing but the same error.
///
/// What was given out before an error is authentic and may be a part only: whoever restores it keeps it apart until
/// [`BackupReader::finish`] gave its proof.
pub struct BackupReader<R: Read> {
    input: R,
    key: SecretKey,
    header: BackupHeader,
    /// The chunk under way as it came, then its content.
    buffer: Zeroizing<Vec<u8>>,
    /// What of the content was given out.
    given: usize,
    /// The first byte behind the chunk under way, which tells that it is not the last.
    ahead: Option<u8>,
    chunk: u64,
    state: State,
}

enum State {
    Chunks,
    End,
    Failed(BackupError),
}

impl<R: Read> BackupReader<R> {
    /// Reads the header, proves it and compares it with what is expected. Gives no content.
    ///
    /// # Errors
    /// [`BackupError`], inside of an [`io::Error`]; what `input` answers.
    pub fn open(mut input: R, key: &BackupKey, expected: Expected<'_>) -> io::Result<Self> {
        let mut bytes = [0; BACKUP_HEADER_BYTES];
        input.read_exact(&mut bytes).map_err(|error| {
            let short = error.kind() == io::ErrorKind::UnexpectedEof;
            let malformed = BackupError::Malformed("it is shorter than a header");
            if short { malformed.into() } else { error }
        })?;
        let header = BackupHeader::parse(&bytes)?;
        let key = header.prove(key, expected)?;
        let buffer = Zeroizing::new(Vec::with_capacity(header.chunk_bytes + TAG_BYTES));
        Ok(Self {
            input,
            key,
            header,
            buffer,
            given: 0,
            ahead: None,
            chunk: 0,
            state: State::Chunks,
        })
    }

    /// The header, proven.
    #[must_use]
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// The proof that all of the backup was given out.
    ///
    /// # Errors
    /// [`BackupError::Failed`] where it was not read to its end; the error that reading ended with.
    pub fn finish(self) -> io::Result<WholeBackup> {
        match self.state {
            State::End if self.given == self.buffer.len() => Ok(WholeBackup::new(self.header)),
            State::End | State::Chunks => {
                Err(BackupError::Failed("it was not read to its end".to_owned()).into())
            }
            State::Failed(error) => Err(error.into()),
        }
    }

    /// Fetches, authenticates and decrypts the next chunk.
    fn next_chunk(&mut self) -> io::Result<()> {
        self.buffer.zeroize();
        self.given = 0;
        let last = self.fetch()?;
        let chunk = self.chunk;
        let Some(content_bytes) = self.buffer.len().checked_sub(TAG_BYTES) else {
            return Err(BackupError::CutOff(chunk).into());
        };
        if !self.open_chunk(content_bytes, last) {
            return Err(self.diagnose(content_bytes, last).into());
        }
        if last && content_bytes == 0 && chunk > 0 {
            // No writer makes it: content that ends with a chunk ends with a full one.
            return Err(BackupError::Chunk(chunk).into());
        }
        self.buffer.truncate(content_bytes);
        self.chunk = chunk.checked_add(1).ok_or(BackupError::Chunk(chunk))?;
        if last {
            self.state = State::End;
        }
        Ok(())
    }

    /// Reads a chunk as it stands in the stream, and one byte more; says whether the stream ends with it.
    fn fetch(&mut self) -> io::Result<bool> {
        let most = self.header.chunk_bytes + TAG_BYTES;
        self.buffer.extend(self.ahead.take());
        let wanted = most - self.buffer.len();
        (&mut self.input).take(wanted as u64).read_to_end(&mut self.buffer)?;
        if self.buffer.len() < most {
            return Ok(true);
        }
        let mut ahead = [0];
        loop {
            match self.input.read(&mut ahead) {
                Ok(0) => return Ok(true),
                Ok(_) => {
                    self.ahead = Some(ahead[0]);
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn open_chunk(&mut self, content_bytes: usize, last: bool) -> bool {
        let nonce: [u8; NONCE_BYTES] = nonce(self.chunk, last);
        let (content, tag) = self.buffer.split_at_mut(content_bytes);
        let Ok(tag) = (&*tag).try_into() else { return false };
        seal::decrypt(self.key.expose(), nonce, &[], content, tag).is_ok()
    }

    /// What is wrong with a chunk that does not open: it may be authentic with the stream around it cut or continued.
    fn diagnose(&mut self, content_bytes: usize, last: bool) -> BackupError {
        let chunk = self.chunk;
        match (self.open_chunk(content_bytes, !last), last) {
            (true, true) => BackupError::CutOff(chunk),
            (true, false) => BackupError::Appended(chunk),
            (false, _) => BackupError::Chunk(chunk),
        }
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        self.buffer.zeroize();
        self.given = 0;
        let known = error.get_ref().and_then(|inner| inner.downcast_ref::<BackupError>());
        let remembered = known.cloned().unwrap_or_else(|| BackupError::Failed(error.to_string()));
        self.state = State::Failed(remembered);
        error
    }
}

impl<R: Read> Read for BackupReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        if self.given == self.buffer.len() {
            match &self.state {
                State::Failed(error) => return Err(error.clone().into()),
                State::End => return Ok(0),
                State::Chunks => self.next_chunk().map_err(|error| self.fail(error))?,
            }
        }
        let content = self.buffer.get(self.given..).unwrap_or_default();
        let (now, _) = content.split_at(content.len().min(to.len()));
        to[..now.len()].copy_from_slice(now);
        self.given += now.len();
        Ok(now.len())
    }
}
