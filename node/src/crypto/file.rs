//! The cipher of the storage engine's files: an authenticated header, then an XChaCha20 keystream.
//!
//! ```text
//! header = "ROOKERYF" (8) ‖ version 1 (1) ‖ key version (4, big endian) ‖ key id (8) ‖ nonce (24) ‖ tag (16) ‖ zeros
//!          to 4,096 bytes
//! ```
//!
//! The nonce is random, one a file; the tag is XChaCha20-Poly1305 over nothing with "rookery file header v1" and the
//! fields before it as associated data, under a key of its own. The keystream hides the content and does not
//! authenticate it: values are sealed one by one, and the engine checks its own blocks. Two keys are derived from the
//! file key: one for tags, one for keystreams.
//!
//! Byte `o` of a file (counted with its header) is byte `o % 64` of keystream block `o / 64`. Block `b` is ChaCha20
//! (RFC 8439) with the subkey HChaCha20(stream key, nonce[..16]), counter `b mod 2^31` and nonce
//! `(b / 2^31, 32 bits, little endian) ‖ nonce[16..]`: XChaCha20 for the first 128 GiB, and never the same block twice
//! beyond. The engine never writes one offset of a file twice: recycling of log files is off.

use std::sync::Arc;

use super::{Error, KeyId, Keyring, Result, SecretKey, random, seal};
use chacha20::{
    ChaCha20, KeyIvInit, R20,
    cipher::{StreamCipher, StreamCipherSeek, array::Array},
    hchacha,
};

/// Bytes before the content of every file: one page, so that blocks stay aligned.
pub const FILE_HEADER_BYTES: usize = 4_096;

const MAGIC: &[u8; 8] = b"ROOKERYF";
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const FIELDS_BYTES: usize = 8 + 1 + 4 + 8 + NONCE_BYTES;
const BLOCK_BYTES: u64 = 64;
const SEGMENT_BLOCKS: u64 = 1 << 31;

/// Makes and opens headers of files with the file keys of a keyring.
#[derive(Clone)]
pub struct FileCipher {
    keyring: Arc<Keyring>,
}

impl FileCipher {
    /// For the files of the node that the keyring belongs to.
    #[must_use]
    pub fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring }
    }

    /// The version of the file key that a header names; `None` where it is no header. Proves nothing.
    #[must_use]
    pub fn key_version(header: &[u8]) -> Option<u32> {
        parse_header(header).ok().map(|fields| fields.key_version)
    }

    /// Writes the header of a new file, with a nonce of its own.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn new_header(&self, header: &mut [u8; FILE_HEADER_BYTES]) -> Result<()> {
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        let keys = self.keyring.keys();
        let (version, key) = keys.file_key();
        write_header(key, version, nonce, header)
    }

    /// Checks a file's header and gives its keystream.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`]; [`Error::OtherFileKey`] where the file was written with a key that is not held.
    pub fn open(&self, header: &[u8]) -> Result<FileStream> {
        let keys = self.keyring.keys();
        let fields = parse_header(header)?;
        let Some(key) = keys.file_key_of_version(fields.key_version) else {
            return Err(other_key(&fields));
        };
        open_header(key, &fields)
    }
}

struct Fields<'a> {
    all: &'a [u8],
    key_version: u32,
    key_id: KeyId,
    nonce: [u8; NONCE_BYTES],
    tag: [u8; TAG_BYTES],
}

fn other_key(fields: &Fields<'_>) -> Error {
    Error::OtherFileKey { id: fields.key_id, version: fields.key_version }
}

fn write_header(
    key: &[u8; 32],
    key_version: u32,
    nonce: [u8; NONCE_BYTES],
    header: &mut [u8; FILE_HEADER_BYTES],
) -> Result<()> {
    let mut fields = Vec::with_capacity(FIELDS_BYTES);
    fields.extend_from_slice(MAGIC);
    fields.push(VERSION);
    fields.extend_from_slice(&key_version.to_be_bytes());
    fields.extend_from_slice(&key_id(key).0);
    fields.extend_from_slice(&nonce);
    let tag_key = SecretKey::derive(key, "rookery file header v1");
    let tag = seal::encrypt(tag_key.expose(), nonce, &associated_data(&fields), &mut [])?;
    header.fill(0);
    header[..FIELDS_BYTES].copy_from_slice(&fields);
    header[FIELDS_BYTES..FIELDS_BYTES + TAG_BYTES].copy_from_slice(&tag);
    Ok(())
}

fn key_id(key: &[u8; 32]) -> KeyId {
    KeyId::of("rookery file key v1", key)
}

fn associated_data(fields: &[u8]) -> Vec<u8> {
    [b"rookery file header v1".as_slice(), fields].concat()
}

fn parse_header(header: &[u8]) -> Result<Fields<'_>> {
    const SHORT: Error = Error::NotAuthentic("the file's header is too short");
    if header.len() != FILE_HEADER_BYTES {
        return Err(SHORT);
    }
    let (all, rest) = header.split_at(FIELDS_BYTES);
    let (magic, fields) = all.split_first_chunk::<8>().ok_or(SHORT)?;
    let (version, fields) = fields.split_first().ok_or(SHORT)?;
    let (key_version, fields) = fields.split_first_chunk::<4>().ok_or(SHORT)?;
    let (key_id, nonce) = fields.split_first_chunk::<8>().ok_or(SHORT)?;
    let (tag, zeros) = rest.split_first_chunk::<TAG_BYTES>().ok_or(SHORT)?;
    if magic != MAGIC {
        return Err(Error::NotAuthentic("the file is not one of this program's encrypted files"));
    }
    if *version != VERSION {
        return Err(Error::NotAuthentic("the file's header is of an unknown version"));
    }
    if zeros.iter().any(|byte| *byte != 0) {
        return Err(Error::NotAuthentic("the file's header was changed"));
    }
    Ok(Fields {
        all,
        key_version: u32::from_be_bytes(*key_version),
        key_id: KeyId(*key_id),
        nonce: nonce.try_into().map_err(|_| SHORT)?,
        tag: *tag,
    })
}

fn open_header(key: &[u8; 32], fields: &Fields<'_>) -> Result<FileStream> {
    if key_id(key) != fields.key_id {
        return Err(other_key(fields));
    }
    let tag_key = SecretKey::derive(key, "rookery file header v1");
    let data = associated_data(fields.all);
    seal::decrypt(tag_key.expose(), fields.nonce, &data, &mut [], fields.tag)
        .map_err(|_| Error::NotAuthentic("the file's header was changed"))?;
    Ok(FileStream::new(&SecretKey::derive(key, "rookery file stream v1"), fields.nonce))
}

/// The keystream of one file, at any offset.
pub struct FileStream {
    subkey: SecretKey,
    nonce: [u8; 8],
}

impl FileStream {
    fn new(key: &SecretKey, nonce: [u8; NONCE_BYTES]) -> Self {
        let (first, last) = nonce.split_at(16);
        let first: [u8; 16] = first.try_into().expect("split at 16");
        let last = last.try_into().expect("24 bytes less 16 are 8");
        let mut subkey = hchacha::<R20>(&Array(*key.expose()), &Array(first)).into();
        Self { subkey: SecretKey::take(&mut subkey), nonce: last }
    }

    /// Adds the keystream to what stands at `offset` of the file, its header counted: encrypts and decrypts.
    ///
    /// # Errors
    /// [`Error::NotAuthentic`] where the file would be longer than the cipher allows (2^64 bytes).
    pub fn apply(&self, offset: u64, mut data: &mut [u8]) -> Result<()> {
        const LONG: Error = Error::NotAuthentic("the file is too long for its cipher");
        offset.checked_add(data.len() as u64).ok_or(LONG)?;
        let segment_bytes = SEGMENT_BLOCKS * BLOCK_BYTES;
        let mut offset = offset;
        while !data.is_empty() {
            let segment = u32::try_from(offset / segment_bytes).map_err(|_| LONG)?;
            let within = offset % segment_bytes;
            let room = usize::try_from(segment_bytes - within).unwrap_or(usize::MAX);
            let (now, later) = data.split_at_mut(room.min(data.len()));
            let mut nonce = [0; 12];
            nonce[..4].copy_from_slice(&segment.to_le_bytes());
            nonce[4..].copy_from_slice(&self.nonce);
            let mut cipher = ChaCha20::new(&Array(*self.subkey.expose()), &Array(nonce));
            cipher.try_seek(within).map_err(|_| LONG)?;
            cipher.try_apply_keystream(now).map_err(|_| LONG)?;
            offset += now.len() as u64;
            data = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use chacha20::XChaCha20;

    use super::*;

    fn stream() -> FileStream {
        FileStream::new(&SecretKey::take(&mut [5; 32]), [6; 24])
    }

    fn open(key: &[u8; 32], header: &[u8]) -> Result<FileStream> {
        open_header(key, &parse_header(header)?)
    }

    #[test]
    fn the_bytes_of_a_header_do_not_change() {
        let mut header = [0; FILE_HEADER_BYTES];
        write_header(&[5; 32], 2, [6; 24], &mut header).unwrap();
        assert_eq!(
            hex::encode(&header[..FIELDS_BYTES + TAG_BYTES]),
            "524f4f4b455259460100000002e08c12617056921906060606060606060606060606060606060606\
             0606060606fa98f4fdb72f2528afb9cac0650db48d"
        );
        let mut zeros = [0; 32];
        open(&[5; 32], &header).unwrap().apply(4_096, &mut zeros).unwrap();
        assert_eq!(
            hex::encode(zeros),
            "78bcf9cf4cb8b7a88e89debb75a7cedea2fff4e9af9258256208887f08cf473c"
        );
    }

    #[test]
    fn a_changed_header_and_another_key_are_refused() {
        let mut header = [0; FILE_HEADER_BYTES];
        write_header(&[5; 32], 2, [6; 24], &mut header).unwrap();
        for bit in (0..(FIELDS_BYTES + TAG_BYTES + 1) * 8).chain([FILE_HEADER_BYTES * 8 - 1]) {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&[5; 32], &flipped).is_err(), "bit {bit}");
        }
        for len in [0, 1, FIELDS_BYTES, FILE_HEADER_BYTES - 1] {
            assert!(open(&[5; 32], &header[..len]).is_err(), "length {len}");
        }
        let Err(error) = open(&[4; 32], &header) else { panic!("another key opens it") };
        let id = KeyId::of("rookery file key v1", &[5; 32]).to_string();
        assert!(error.to_string().contains(&id), "{error}");
    }

    #[test]
    fn the_stream_is_xchacha20_at_every_offset() {
        let mut whole = vec![0; 1_000];
        XChaCha20::new(&Array([5; 32]), &Array([6; 24])).apply_keystream(&mut whole);
        for (from, to) in [(0, 1_000), (1, 2), (63, 65), (64, 128), (100, 777), (999, 1_000)] {
            let mut part = vec![0; to - from];
            stream().apply(from as u64, &mut part).unwrap();
            assert_eq!(part, whole[from..to], "{from}..{to}");
        }
    }

    #[test]
    fn no_block_repeats_beyond_32_bits_of_blocks() {
        let block = |offset: u64| {
            let mut block = [0; 64];
            stream().apply(offset, &mut block).unwrap();
            block
        };
        let blocks = [0, 64, (1 << 37) - 64, 1 << 37, 1 << 38, (1 << 38) + 64, 1 << 45].map(block);
        for (i, one) in blocks.iter().enumerate() {
            assert!(blocks[..i].iter().all(|other| other != one), "block {i}");
        }
        let mut across = [0; 128];
        stream().apply((1 << 37) - 64, &mut across).unwrap();
        assert_eq!(across[..64], blocks[2]);
        assert_eq!(across[64..], blocks[3]);
        assert!(stream().apply(u64::MAX, &mut [0; 2]).is_err());
    }
}
