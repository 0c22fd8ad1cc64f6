//! The sentinel and the keyring: an older keyring is refused, and no slot goes on naming a key that is to be destroyed.

use std::path::Path;

use super::{Error, Keyring, Result, SLOTS, Sentinel};

impl Sentinel {
    /// Writes every slot again, so that the newest key seals them all; durable when it returns.
    ///
    /// # Errors
    /// [`Error::Engine`], final.
    pub fn reseal(&self) -> Result<()> {
        // A durable write takes the oldest slot that is not the durable one, so as many writes reach them all.
        (0..SLOTS).try_for_each(|_| self.record_durably([]))
    }
}

/// A keyring that has changed less often than the sentinel saw is an older copy: it lacks keys, or holds destroyed ones.
pub(super) fn check_keyring(folder: &Path, keyring: &Keyring, expected: u32) -> Result<()> {
    let found = keyring.keys().revision();
    if found >= expected {
        return Ok(());
    }
    Err(Error::Folder(format!(
        "the keyring of {} is an older copy: its revision is {found}, but it was {expected} already. It lacks keys that \
         records need, or holds some that were destroyed. Restore the newest copy of the file `keyring`, or delete the \
         whole data folder and let the node join anew",
        folder.display()
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::{
        super::{Sentinel, slot_path},
        *,
    };
    use crate::{
        crypto::{KEYRING_FILE, MasterKey, SEAL_OVERHEAD_BYTES},
        names::GroupId,
    };

    #[test]
    fn an_older_keyring_is_refused_and_a_newer_one_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        let master = MasterKey::random().unwrap();
        let keyring = Keyring::open(&folder, &master).unwrap();
        let path = folder.join(KEYRING_FILE);
        let [first, second, third] = [3, 4, 5].map(|group| {
            keyring.create(GroupId(group)).unwrap();
            fs::read(&path).unwrap()
        });
        keyring.destroy(GroupId(5)).unwrap();
        let shredded = fs::read(&path).unwrap();
        let (sentinel, _) = Sentinel::open(&folder, &keyring).unwrap();
        sentinel.record_durably([]).unwrap();
        drop((sentinel, keyring));
        let open = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            let keyring = Keyring::open(&folder, &master).unwrap();
            Sentinel::open(&folder, &keyring).map(drop)
        };
        for older in [first, second, third] {
            let error = open(&older).unwrap_err().to_string();
            assert!(error.contains("is an older copy"), "{error}");
        }
        open(&shredded).unwrap();
    }

    #[test]
    fn after_a_rotation_no_slot_names_the_older_key() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        let keyring = Keyring::open(&folder, &MasterKey::random().unwrap()).unwrap();
        let (sentinel, _) = Sentinel::open(&folder, &keyring).unwrap();
        (0..9).for_each(|_| sentinel.record_durably([]).unwrap());
        keyring.rotate(GroupId::CLUSTER).unwrap();
        let newest = keyring.keys().versions(GroupId::CLUSTER).last().unwrap();
        sentinel.reseal().unwrap();
        for slot in 0..SLOTS {
            let bytes = fs::read(slot_path(&folder, slot)).unwrap();
            assert!(bytes.len() > SEAL_OVERHEAD_BYTES);
            // The length, the version of the seal, and then the version of the key.
            assert_eq!(bytes[5..9], newest.to_be_bytes(), "slot {slot}");
        }
        drop(sentinel);
        keyring.destroy_older(GroupId::CLUSTER).unwrap();
        Sentinel::open(&folder, &keyring).unwrap();
    }

    #[test]
    fn the_keyring_of_another_node_under_the_same_master_key_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let master = MasterKey::random().unwrap();
        let [own, other] = ["own", "other"].map(|name| {
            let folder = parent.path().join(name);
            let keyring = Keyring::open(&folder, &master).unwrap();
            Sentinel::open(&folder, &keyring).unwrap().0.record_durably([]).unwrap();
            folder
        });
        fs::copy(other.join(KEYRING_FILE), own.join(KEYRING_FILE)).unwrap();
        let keyring = Keyring::open(&own, &master).unwrap();
        let Err(error) = Sentinel::open(&own, &keyring) else { unreachable!("opened") };
        assert!(error.to_string().contains("no slot of the sentinel"), "{error}");
    }
}
