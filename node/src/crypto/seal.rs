//! Sealed records: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) with a random nonce, bound to their place.
//!
//! ```text
//! sealed = version 1 (1 byte) ‖ key version (4, big endian) ‖ nonce (24) ‖ ciphertext ‖ tag (16)
//! associated data = "rookery seal" ‖ version ‖ key version ‖ purpose (1) ‖ group (8) ‖ table (1) ‖ key (the rest)
//! ```
//!
//! Every field of the associated data but the last has a fixed width, so two places never encode alike.

use chacha20poly1305::{
    AeadInOut, KeyInit, XChaCha20Poly1305,
    aead::{array::Array, inout::InOutBuf},
};

use super::{Error, Result, random};
use crate::names::GroupId;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + 4;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const DOMAIN: &[u8; 12] = b"rookery seal";

/// How much longer a sealed record is than its content.
pub const SEAL_OVERHEAD_BYTES: usize = HEADER_BYTES + NONCE_BYTES + TAG_BYTES;

/// What a sealed record is for; a record of one purpose never opens as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A value of a table.
    Record,
    /// The durable sentinel.
    Sentinel,
    /// The node's private sealing key.
    SealingKey,
    /// The node's certificates and their keys.
    ServerCertificates,
}

impl Purpose {
    fn number(self) -> u8 {
        match self {
            Self::Record => 3,
            Self::Sentinel => 4,
            Self::SealingKey => 5,
            Self::ServerCertificates => 6,
        }
    }
}

/// Where a sealed record stands. It opens there and nowhere else.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// What the record is for.
    pub purpose: Purpose,
    /// The Raft group whose data key seals it.
    pub group: GroupId,
    /// The table's number; 0 outside of tables.
    pub table: u8,
    /// The whole key of the record.
    pub key: &'a [u8],
}

impl Place<'_> {
    fn associated_data(&self, header: &[u8; HEADER_BYTES]) -> Vec<u8> {
        let mut data = Vec::with_capacity(DOMAIN.len() + HEADER_BYTES + 10 + self.key.len());
        data.extend_from_slice(DOMAIN);
        data.extend_from_slice(header);
        data.push(self.purpose.number());
        data.extend_from_slice(&self.group.0.to_be_bytes());
        data.push(self.table);
        data.extend_from_slice(self.key);
        data
    }
}

/// Seals `content` for `place` under a key of version `key_version`.
pub(super) fn seal(
    key: &[u8; 32],
    key_version: u32,
    place: &Place<'_>,
    content: &[u8],
) -> Result<Vec<u8>> {
    let mut nonce = [0; NONCE_BYTES];
    random(&mut nonce)?;
    seal_with_nonce(key, key_version, nonce, place, content)
}

fn seal_with_nonce(
    key: &[u8; 32],
    key_version: u32,
    nonce: [u8; NONCE_BYTES],
    place: &Place<'_>,
    content: &[u8],
) -> Result<Vec<u8>> {
    let header = header(key_version);
    let mut sealed = Vec::with_capacity(content.len() + SEAL_OVERHEAD_BYTES);
    sealed.extend_from_slice(&header);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(content);
    let (_, body) = sealed.split_at_mut(HEADER_BYTES + NONCE_BYTES);
    let tag = encrypt(key, nonce, &place.associated_data(&header), body)?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

fn header(key_version: u32) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = key_version.to_be_bytes();
    [VERSION, a, b, c, d]
}

/// The key version that a sealed record names.
///
/// # Errors
/// [`Error::NotAuthentic`]: it is too short, or of another version.
pub fn key_version(sealed: &[u8]) -> Result<u32> {
    match sealed {
        [VERSION, a, b, c, d, rest @ ..] if rest.len() >= NONCE_BYTES + TAG_BYTES => {
            Ok(u32::from_be_bytes([*a, *b, *c, *d]))
        }
        [VERSION, ..] | [] => Err(Error::NotAuthentic("the record is too short")),
        _ => Err(Error::NotAuthentic("the record is of an unknown version")),
    }
}

/// Opens what `seal` made for `place` with `key`, which is the one that [`key_version`] names.
pub(super) fn open(key: &[u8; 32], place: &Place<'_>, sealed: &[u8]) -> Result<Vec<u8>> {
    let header = header(key_version(sealed)?);
    let body = &sealed[HEADER_BYTES..];
    let Some((nonce, body)) = body.split_first_chunk::<NONCE_BYTES>() else {
        return Err(Error::NotAuthentic("the record is too short"));
    };
    let Some((body, tag)) = body.split_last_chunk::<TAG_BYTES>() else {
        return Err(Error::NotAuthentic("the record is too short"));
    };
    let mut content = body.to_vec();
    decrypt(key, *nonce, &place.associated_data(&header), &mut content, *tag)?;
    Ok(content)
}

/// Encrypts in place; gives the tag.
pub(super) fn encrypt(
    key: &[u8; 32],
    nonce: [u8; NONCE_BYTES],
    associated_data: &[u8],
    buffer: &mut [u8],
) -> Result<[u8; TAG_BYTES]> {
    XChaCha20Poly1305::new(&Array(*key))
        .encrypt_inout_detached(&Array(nonce), associated_data, InOutBuf::from(buffer))
        .map(Into::into)
        .map_err(|_| Error::NotAuthentic("the content is too long to be sealed"))
}

/// Decrypts in place what authenticates; leaves the ciphertext otherwise.
pub(super) fn decrypt(
    key: &[u8; 32],
    nonce: [u8; NONCE_BYTES],
    associated_data: &[u8],
    buffer: &mut [u8],
    tag: [u8; TAG_BYTES],
) -> Result<()> {
    XChaCha20Poly1305::new(&Array(*key))
        .decrypt_inout_detached(&Array(nonce), associated_data, InOutBuf::from(buffer), &Array(tag))
        .map_err(|_| Error::NotAuthentic("the tag does not match"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn place(key: &[u8]) -> Place<'_> {
        Place { purpose: Purpose::Record, group: GroupId(3), table: 2, key }
    }

    #[test]
    fn the_draft_test_vector_of_xchacha20_poly1305_comes_out() {
        // draft-irtf-cfrg-xchacha-03, appendix A.3.1.
        let key: [u8; 32] = std::array::from_fn(|i| 0x80 + u8::try_from(i).unwrap());
        let nonce: [u8; 24] = std::array::from_fn(|i| 0x40 + u8::try_from(i).unwrap());
        let data = hex::decode("50515253c0c1c2c3c4c5c6c7").unwrap();
        let plain = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                     sunscreen would be it.";
        let mut buffer = plain.as_bytes().to_vec();
        let tag = encrypt(&key, nonce, &data, &mut buffer).unwrap();
        assert_eq!(
            hex::encode(&buffer),
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39\
             ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
             21f9664c97637da9768812f615c68b13b52e"
        );
        assert_eq!(hex::encode(tag), "c0875924c1c7987947deafd8780acf49");
        decrypt(&key, nonce, &data, &mut buffer, tag).unwrap();
        assert_eq!(buffer, plain.as_bytes());
    }

    #[test]
    fn altered_vectors_are_refused() {
        let nonce = [1; 24];
        let mut sealed = b"content".to_vec();
        let tag = encrypt(&KEY, nonce, b"data", &mut sealed).unwrap();
        let refused = |key, nonce, data: &[u8], body: &[u8], tag| {
            decrypt(key, nonce, data, &mut body.to_vec(), tag).is_err()
        };
        assert!(!refused(&KEY, nonce, b"data", &sealed, tag));
        assert!(refused(&[8; 32], nonce, b"data", &sealed, tag));
        assert!(refused(&KEY, [2; 24], b"data", &sealed, tag));
        assert!(refused(&KEY, nonce, b"dat", &sealed, tag));
        assert!(refused(&KEY, nonce, b"data", &sealed[1..], tag));
        assert!(refused(&KEY, nonce, b"data", &sealed, [0; 16]));
    }

    #[test]
    fn the_bytes_of_a_sealed_record_do_not_change() {
        let sealed =
            seal_with_nonce(&KEY, 0x0102_0304, [9; 24], &place(b"key"), b"content").unwrap();
        assert_eq!(
            hex::encode(&sealed),
            "0101020304090909090909090909090909090909090909090909090909dd1d8cfe19c40dd93819c5\
             aeb01756af27b6a9918d626d"
        );
        assert_eq!(sealed.len(), b"content".len() + SEAL_OVERHEAD_BYTES);
        assert_eq!(key_version(&sealed).unwrap(), 0x0102_0304);
        assert_eq!(open(&KEY, &place(b"key"), &sealed).unwrap(), b"content");
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let sealed = seal(&KEY, 1, &place(b"key"), b"content").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&KEY, &place(b"key"), &flipped).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(open(&KEY, &place(b"key"), &sealed[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn a_record_opens_in_its_place_only() {
        let sealed = seal(&KEY, 1, &place(b"key"), b"content").unwrap();
        let here = place(b"key");
        for (elsewhere, what) in [
            (Place { purpose: Purpose::Sentinel, ..here }, "purpose"),
            (Place { group: GroupId(4), ..here }, "group"),
            (Place { table: 1, ..here }, "table"),
            (Place { key: b"kez", ..here }, "key"),
            (Place { key: b"key\0", ..here }, "longer key"),
            (Place { key: b"", ..here }, "no key"),
        ] {
            assert!(open(&KEY, &elsewhere, &sealed).is_err(), "{what}");
        }
    }

    #[test]
    fn two_seals_of_one_content_differ() {
        let seal = || seal(&KEY, 1, &place(b"key"), b"content").unwrap();
        assert_ne!(seal(), seal());
    }
}
