//! A master key from a passphrase: Argon2id (RFC 9106), with salt and parameters in a small file of the data folder.
//!
//! ```text
//! master.kdf = "ROOKERYP" (8) ‖ version 1 (1) ‖ memory in KiB (4) ‖ passes (4) ‖ lanes (4) ‖ salt (32) ‖ tag (32)
//! root       = Argon2id(passphrase, salt, memory, passes, lanes)                       integers are big endian
//! master key = HKDF-SHA256(root, "rookery passphrase master key v1")
//! tag        = HKDF-SHA256(root, "rookery passphrase tag v1" ‖ the fields before it)
//! ```
//!
//! The file holds no secret. Its parameters have bounds, so that a hostile one can cost neither all memory nor all time;
//! its tag tells a wrong passphrase or a changed file from a keyring of another master key. Without the file the
//! passphrase is worth nothing, and a new one is only ever made where there is no keyring.
//!
//! A rotation to a new passphrase writes `master.kdf.next` before the keyring and renames it after: whichever master
//! key the keyring has after a crash, its file is there.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Error, KeyId, MasterKey, Result, SecretKey, folder, random, refuse_master};
use crate::limits;

/// Salt and parameters in the data folder.
pub const KDF_FILE: &str = "master.kdf";
/// The same of a master key that a rotation is about to take into use.
const KDF_NEXT_FILE: &str = "master.kdf.next";

const MAGIC: &[u8; 8] = b"ROOKERYP";
const VERSION: u8 = 1;
const SALT_BYTES: usize = 32;
const FIELDS_BYTES: usize = 8 + 1 + 3 * 4 + SALT_BYTES;
const TAG_BYTES: usize = 32;

/// What a passphrase is stretched with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: [u8; SALT_BYTES],
}

impl Stretch {
    /// The second choice of RFC 9106, section 4: 64 MiB, three passes, four lanes.
    fn new() -> Result<Self> {
        let mut salt = [0; SALT_BYTES];
        random(&mut salt)?;
        Ok(Self { memory_kib: 64 * 1024, passes: 3, lanes: 4, salt })
    }

    fn fields(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(FIELDS_BYTES + TAG_BYTES);
        fields.extend_from_slice(MAGIC);
        fields.push(VERSION);
        for number in [self.memory_kib, self.passes, self.lanes] {
            fields.extend_from_slice(&number.to_be_bytes());
        }
        fields.extend_from_slice(&self.salt);
        fields
    }

    /// Checks the bounds before anything is allocated.
    fn parse(content: &[u8]) -> std::result::Result<(Self, [u8; TAG_BYTES]), &'static str> {
        const SHORT: &str = "has another length than it should";
        if content.len() != FIELDS_BYTES + TAG_BYTES {
            return Err(SHORT);
        }
        let (magic, rest) = content.split_first_chunk::<8>().ok_or(SHORT)?;
        let (version, rest) = rest.split_first().ok_or(SHORT)?;
        let (numbers, rest) = rest.split_first_chunk::<12>().ok_or(SHORT)?;
        let (salt, tag) = rest.split_first_chunk::<SALT_BYTES>().ok_or(SHORT)?;
        if magic != MAGIC {
            return Err("is no file of a passphrase");
        }
        if *version != VERSION {
            return Err("is of a version that this program does not know");
        }
        let number = |i: usize| {
            let bytes = numbers.get(i * 4..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or(SHORT)
        };
        let (memory_kib, passes, lanes) = (number(0)?, number(1)?, number(2)?);
        if !limits::KDF_MEMORY_KIB.contains(&memory_kib)
            || !limits::KDF_PASSES.contains(&passes)
            || !limits::KDF_LANES.contains(&lanes)
        {
            return Err("asks for more, or less, work than this program does");
        }
        let tag = tag.try_into().map_err(|_| SHORT)?;
        Ok((Self { memory_kib, passes, lanes, salt: *salt }, tag))
    }

    /// The master key of a passphrase, and the tag of the file.
    fn derive(&self, passphrase: &[u8]) -> Result<(MasterKey, [u8; TAG_BYTES])> {
        let failed = |why: String| Error::MasterKey(format!("the passphrase: {why}"));
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(|error| failed(error.to_string()))?;
        let count = params.block_count();
        let mut blocks = Vec::new();
        blocks.try_reserve_exact(count).map_err(|_| {
            failed(format!("{} MiB of memory cannot be had to stretch it", self.memory_kib / 1024))
        })?;
        blocks.resize(count, Block::default());
        let mut blocks = Zeroizing::new(blocks);
        let mut root = SecretKey::take(&mut [0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(
                passphrase,
                &self.salt,
                root.0.bytes_mut(),
                blocks.as_mut_slice(),
            )
            .map_err(|error| failed(error.to_string()))?;
        let master = SecretKey::derive(root.expose(), "rookery passphrase master key v1");
        let mut tag = [0; TAG_BYTES];
        hkdf::Hkdf::<Sha256>::new(None, root.expose())
            .expand_multi_info(&[b"rookery passphrase tag v1", &self.fields()], &mut tag)
            .map_err(|error| failed(error.to_string()))?;
        Ok((MasterKey::new(master)?, tag))
    }
}

/// The master key of a passphrase in a data folder. `sealed_by`: the master key that its keyring names; where there is
/// no keyring, salt and parameters are made.
///
/// # Errors
/// [`Error::MasterKey`]: the file is missing beside a keyring, damaged, beyond the bounds, or the passphrase is wrong.
pub(super) fn load(
    folder: &Path,
    passphrase: &[u8],
    sealed_by: Option<KeyId>,
) -> Result<MasterKey> {
    let mut first = None;
    for name in [KDF_FILE, KDF_NEXT_FILE] {
        let path = folder.join(name);
        let Some(content) = read(&path)? else { continue };
        let key = open(&path, &content, passphrase).map(|key| key.settling(name == KDF_NEXT_FILE));
        if key.as_ref().is_ok_and(|key| sealed_by.is_none_or(|expected| key.id() == expected)) {
            return key;
        }
        first.get_or_insert(key);
    }
    match (first, sealed_by) {
        (Some(first), _) => first,
        (None, Some(_)) => refuse_master(format!(
            "{} is gone, and without it a passphrase opens nothing; restore it from a copy",
            folder.join(KDF_FILE).display()
        )),
        (None, None) => {
            folder::make_private_folder(folder)?;
            make(&folder.join(KDF_FILE), passphrase)
        }
    }
}

/// A master key with a salt of its own, for a rotation; [`settle`] puts its file in place when the keyring has it.
pub(super) fn next(folder: &Path, passphrase: &[u8]) -> Result<MasterKey> {
    let key = make(&folder.join(KDF_NEXT_FILE), passphrase)?;
    Ok(key.settling(true))
}

/// Puts the file of the master key in use in its place, after a rotation or at the start after one.
pub(super) fn settle(folder: &Path, in_use: &MasterKey) -> Result<()> {
    if !in_use.settles {
        return Ok(());
    }
    let next = folder.join(KDF_NEXT_FILE);
    fs::rename(&next, folder.join(KDF_FILE))
        .map_err(Error::io(format!("{} cannot be renamed", next.display())))?;
    folder::sync_folder(folder)
}

fn make(path: &Path, passphrase: &[u8]) -> Result<MasterKey> {
    let stretch = Stretch::new()?;
    let (key, tag) = stretch.derive(passphrase)?;
    folder::replace_file(path, &[stretch.fields().as_slice(), &tag].concat())?;
    Ok(key)
}

fn open(path: &Path, content: &[u8], passphrase: &[u8]) -> Result<MasterKey> {
    let (stretch, tag) = Stretch::parse(content)
        .or_else(|why| refuse_master(format!("{} {why}", path.display())))?;
    let (key, expected) = stretch.derive(passphrase)?;
    if bool::from(expected.ct_eq(&tag)) {
        return Ok(key);
    }
    refuse_master(format!("the passphrase is wrong, or {} was changed", path.display()))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = || Error::io(format!("{} cannot be read", path.display()));
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed()(error)),
    };
    let mut content = Vec::new();
    let bytes_max = (FIELDS_BYTES + TAG_BYTES) as u64 + 1;
    file.take(bytes_max).read_to_end(&mut content).map_err(failed())?;
    Ok(Some(content))
}

/// A passphrase as its source gives it, without the end of the line.
///
/// # Errors
/// [`Error::MasterKey`] where it is shorter or longer than the bounds.
pub(super) fn checked(mut content: Zeroizing<Vec<u8>>, shown: &str) -> Result<Zeroizing<Vec<u8>>> {
    if content.last() == Some(&b'\n') {
        content.pop();
    }
    if content.last() == Some(&b'\r') {
        content.pop();
    }
    let bounds = limits::PASSPHRASE_BYTES;
    if bounds.contains(&content.len()) {
        return Ok(content);
    }
    content.zeroize();
    let (least, most) = (bounds.start(), bounds.end());
    refuse_master(format!("the passphrase of {shown} must have {least} to {most} bytes"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PASSPHRASE: &[u8] = b"correct horse battery";

    /// As little work as the bounds allow.
    fn light() -> Stretch {
        Stretch { memory_kib: 19 * 1024, passes: 1, lanes: 1, salt: [7; SALT_BYTES] }
    }

    fn write_light(path: &Path) -> MasterKey {
        let (key, tag) = light().derive(PASSPHRASE).unwrap();
        fs::write(path, [light().fields().as_slice(), &tag].concat()).unwrap();
        key
    }

    /// RFC 9106, section 5.3, through the call that [`Stretch::derive`] makes.
    #[test]
    fn argon2id_gives_the_tag_of_rfc_9106() {
        let data = argon2::AssociatedData::new(&[4; 12]).unwrap();
        let mut params = argon2::ParamsBuilder::new();
        let params = params.m_cost(32).t_cost(3).p_cost(4).data(data).build().unwrap();
        let mut blocks = vec![Block::default(); params.block_count()];
        let mut tag = [0; 32];
        Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params)
            .unwrap()
            .hash_password_into_with_memory(&[1; 32], &[2; 16], &mut tag, &mut blocks)
            .unwrap();
        let expected = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659";
        assert_eq!(hex::encode(tag), expected);
    }

    #[test]
    fn the_bytes_of_the_file_and_its_key_do_not_change() {
        let (key, tag) = light().derive(PASSPHRASE).unwrap();
        assert_eq!(
            format!("{} {}", key.id(), hex::encode(tag)),
            "7fc28c30ba42b192 7d5ba9edfeb4f369c100b3fd22a3a3cab0def9f4987de5a126c17f53e5294b26"
        );
        assert_eq!(
            hex::encode(light().fields()),
            format!("524f4f4b45525950010000{}0000000100000001{}", "4c00", "07".repeat(32))
        );
    }

    #[test]
    fn a_changed_file_and_a_wrong_passphrase_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KDF_FILE);
        let id = write_light(&path).id();
        assert_eq!(load(folder.path(), PASSPHRASE, Some(id)).unwrap().id(), id);
        let check = |passphrase: &[u8], part: &str| {
            let error = load(folder.path(), passphrase, Some(id)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check(b"correct horse batterz", "wrong, or");
        let good = fs::read(&path).unwrap();
        // A bit of each field; the numbers low enough that the work stays small.
        for (at, part) in [
            (0, "no file of a passphrase"),
            (8, "version"),
            (9, "more, or less, work"),
            (13, "more, or less, work"),
            (17, "more, or less, work"),
            (12, "wrong, or"),
            (21, "wrong, or"),
            (FIELDS_BYTES, "wrong, or"),
            (good.len() - 1, "wrong, or"),
        ] {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            fs::write(&path, &bad).unwrap();
            check(PASSPHRASE, part);
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        check(PASSPHRASE, "another length");
        fs::remove_file(&path).unwrap();
        check(PASSPHRASE, "is gone");
        assert!(!path.exists(), "no new one is made beside a keyring");
    }

    #[test]
    fn hostile_parameters_cost_nothing() {
        for (memory_kib, passes, lanes) in [
            (u32::MAX, 1, 1),
            (1024 * 1024 + 1, 1, 1),
            (1024, 1, 1),
            (64 * 1024, 17, 1),
            (64 * 1024, 0, 1),
            (64 * 1024, 1, 0),
            (64 * 1024, 1, 1_000_000),
        ] {
            let hostile = Stretch { memory_kib, passes, lanes, salt: [0; SALT_BYTES] };
            let content = [hostile.fields(), vec![0; TAG_BYTES]].concat();
            let refused = Stretch::parse(&content);
            assert!(refused.is_err_and(|why| why.contains("work")), "{hostile:?}");
        }
    }

    #[test]
    fn a_rotation_to_a_passphrase_is_found_at_each_point() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let old = load(&data, PASSPHRASE, None).unwrap();
        let other = b"another passphrase altogether";
        let new = next(&data, other).unwrap();
        let has =
            |passphrase: &[u8], sealed_by| load(&data, passphrase, Some(sealed_by)).unwrap().id();
        // Before the keyring was written, and after.
        assert_eq!(has(PASSPHRASE, old.id()), old.id());
        assert_eq!(has(other, new.id()), new.id());
        settle(&data, &old).unwrap();
        assert!(data.join(KDF_NEXT_FILE).exists(), "the next one is not in use yet");
        settle(&data, &load(&data, other, Some(new.id())).unwrap()).unwrap();
        assert!(!data.join(KDF_NEXT_FILE).exists());
        assert_eq!(has(other, new.id()), new.id());
    }

    #[test]
    fn a_passphrase_ends_with_its_line_and_has_a_length() {
        for (content, expected) in [
            ("twelve bytes\n", Some("twelve bytes")),
            ("twelve bytes\r\n", Some("twelve bytes")),
            ("twelve bytes", Some("twelve bytes")),
            ("a line\nanother\n\n", Some("a line\nanother\n")),
            ("eleven byte\n", None),
            ("", None),
        ] {
            let got = checked(Zeroizing::new(content.as_bytes().to_vec()), "a test").ok();
            assert_eq!(got.as_ref().map(|got| got.as_slice()), expected.map(str::as_bytes));
        }
        assert!(checked(Zeroizing::new(vec![b'a'; 1025]), "a test").is_err());
    }
}
