//! Opening the keyring of a data folder at a start, whichever of two master keys a rotation left it with.
//!
//! A rotation of the master key replaces the keyring's file whole: before that the current master key opens it, and after
//! it the next one, with nothing in between. So a start tries the one that the file names, and says which it was.

use std::{path::Path, sync::Arc};

use super::{Error, KeyId, Keyring, MasterKey, MasterKeySource, Result, passphrase};

/// An open keyring, and which source its master key came from.
pub struct OpenedKeyring {
    /// The keyring; the data folder belongs to this process as long as it is open.
    pub keyring: Arc<Keyring>,
    /// The next source opened it: a rotation is complete, and the configuration lags behind.
    pub by_next: bool,
}

/// Opens the keyring of a data folder with the master key of `current`, or with that of `next` where the keyring names
/// that one. Where there is no keyring and no data, makes one for `current`.
///
/// # Errors
/// As [`MasterKey::load`] and [`Keyring::open`]; nothing was changed then.
pub fn open_keyring(
    folder: &Path,
    current: &MasterKeySource,
    next: Option<&MasterKeySource>,
) -> Result<OpenedKeyring> {
    let sealed_by = Keyring::sealed_by(folder)?;
    let first = MasterKey::load(current, folder, sealed_by);
    let fits = |key: &MasterKey| sealed_by.is_none_or(|expected| key.id() == expected);
    if first.as_ref().is_ok_and(fits) {
        return finish(folder, &first?, false);
    }
    let (Some(next), Some(expected)) = (next, sealed_by) else {
        return finish(folder, &first?, false);
    };
    match MasterKey::load(next, folder, sealed_by) {
        Ok(second) if second.id() == expected => {
            tracing::warn!(
                master_key = %expected,
                source = %next,
                "the keyring is sealed by the next master key: its rotation is complete. Let [encryption] name it in \
                 the place of the current one; the former key is not needed for this folder any more"
            );
            finish(folder, &second, true)
        }
        second => Err(neither(expected, first, second)),
    }
}

fn finish(folder: &Path, master: &MasterKey, by_next: bool) -> Result<OpenedKeyring> {
    let keyring = Keyring::open(folder, master)?;
    passphrase::settle(folder, master)?;
    Ok(OpenedKeyring { keyring, by_next })
}

/// Why neither source will do: the current one's own failure, or that both are other keys.
fn neither(expected: KeyId, current: Result<MasterKey>, next: Result<MasterKey>) -> Error {
    match (current, next) {
        (Ok(current), Ok(next)) => Error::MasterKey(format!(
            "the keyring of this data folder was sealed by master key {expected}, but the current one is {} and the \
             next one {}; nothing was changed",
            current.id(),
            next.id()
        )),
        (Ok(current), Err(_)) => Error::WrongMasterKey { expected, given: current.id() },
        (Err(error), _) => error,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

    use super::{super::PassphraseSource, *};

    fn key_file(folder: &Path, name: &str, byte: u8) -> MasterKeySource {
        let path = folder.join(name);
        let key: Vec<u8> = (0..32).map(|i| i ^ byte).collect();
        fs::write(&path, key).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        MasterKeySource::File(path)
    }

    fn id(source: &MasterKeySource, data: &Path) -> KeyId {
        MasterKey::load(source, data, Keyring::sealed_by(data).unwrap()).unwrap().id()
    }

    struct Folder {
        _parent: tempfile::TempDir,
        data: PathBuf,
        old: MasterKeySource,
        new: MasterKeySource,
    }

    fn folder() -> Folder {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("data");
        let (old, new) = (key_file(parent.path(), "old", 1), key_file(parent.path(), "new", 2));
        drop(open_keyring(&data, &old, None).unwrap());
        Folder { _parent: parent, data, old, new }
    }

    #[test]
    fn either_master_key_opens_at_each_point_of_a_rotation() {
        let it = folder();
        let opened = open_keyring(&it.data, &it.old, Some(&it.new)).unwrap();
        assert!(!opened.by_next, "before the rotation");
        opened.keyring.rewrap(&MasterKey::load_next(&it.new, &it.data).unwrap()).unwrap();
        drop(opened);
        assert!(open_keyring(&it.data, &it.old, Some(&it.new)).unwrap().by_next);
        // The former key's file is gone already, though the configuration still names it.
        let MasterKeySource::File(path) = &it.old else { unreachable!() };
        fs::remove_file(path).unwrap();
        assert!(open_keyring(&it.data, &it.old, Some(&it.new)).unwrap().by_next);
        assert!(!open_keyring(&it.data, &it.new, None).unwrap().by_next);
        assert!(!path.exists(), "no key is made for a missing file");
    }

    #[test]
    fn a_source_with_another_key_is_refused_by_both_ids() {
        let it = folder();
        let expected = id(&it.old, &it.data).to_string();
        let given = id(&it.new, &it.data).to_string();
        // A command that prints another key at every start.
        let random = ["sh", "-c", "head -c 32 /dev/urandom"].map(str::to_owned).to_vec();
        for (current, next, parts) in [
            (it.new.clone(), None, vec![expected.as_str(), &given]),
            (MasterKeySource::Command(random.clone()), None, vec![expected.as_str(), "was given"]),
            (it.new.clone(), Some(it.new.clone()), vec![expected.as_str(), &given, "the next one"]),
        ] {
            let before = fs::read(it.data.join("keyring")).unwrap();
            let Err(error) = open_keyring(&it.data, &current, next.as_ref()) else {
                unreachable!("opened with {current:?}")
            };
            let error = error.to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert_eq!(fs::read(it.data.join("keyring")).unwrap(), before);
        }
    }

    #[test]
    fn a_folder_goes_from_a_key_to_a_passphrase_and_to_another() {
        let it = folder();
        let passphrase = |words: &str| {
            let words = ["echo", words].map(str::to_owned).to_vec();
            MasterKeySource::Passphrase(PassphraseSource::Command(words))
        };
        let (first, second) = (passphrase("first passphrase"), passphrase("second passphrase"));
        for (from, to) in [(&it.old, &first), (&first, &second), (&second, &it.new)] {
            let opened = open_keyring(&it.data, from, None).unwrap();
            let next = MasterKey::load_next(to, &it.data).unwrap();
            opened.keyring.rewrap(&next).unwrap();
            // A crash here, before the salt is in its place.
            drop(opened);
            assert!(open_keyring(&it.data, from, None).is_err());
            drop(open_keyring(&it.data, to, None).unwrap());
            assert!(!it.data.join("master.kdf.next").exists());
        }
    }
}
