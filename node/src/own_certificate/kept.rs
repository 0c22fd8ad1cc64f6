//! The certificates and keys of this node in its data folder: sealed, and replaced whole or not at all.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use prost::Message as _;
use rookery_proto::log::v1::{NodeRecord, StoredIdentities, StoredIdentity};
use rustls_pki_types::CertificateDer;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    crypto::{self, Keyring, Place, Purpose},
    names::{GroupId, Thumbprint},
    tls::TlsIdentity,
};

/// The file in the data folder.
pub const FILE: &str = "certificates";

const PLACE: Place<'static> = Place {
    purpose: Purpose::ServerCertificates,
    group: GroupId::CLUSTER,
    table: 0,
    key: b"server certificates",
};

/// What the data folder holds.
pub struct Kept {
    path: PathBuf,
    keyring: Arc<Keyring>,
    identities: Vec<Arc<TlsIdentity>>,
    current: Option<Thumbprint>,
    source: Option<Thumbprint>,
}

impl Kept {
    /// Opens the file of a data folder; an absent one is empty.
    ///
    /// # Errors
    /// It is not authentic, or cannot be read.
    pub fn open(folder: &Path, keyring: Arc<Keyring>) -> Result<Self, crypto::Error> {
        let path = folder.join(FILE);
        let none = Self { path, keyring, identities: Vec::new(), current: None, source: None };
        let sealed = match fs::read(&none.path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(none),
            Err(source) => {
                let what = format!("{} cannot be read", none.path.display());
                return Err(crypto::Error::Io { what, source });
            }
        };
        let damaged = || crypto::Error::NotAuthentic("the kept certificates are damaged");
        let opened = Zeroizing::new(none.keyring.keys().open(&PLACE, &sealed)?);
        let stored = StoredIdentities::decode(opened.as_slice()).map_err(|_| damaged())?;
        let mut identities = Vec::new();
        for mut identity in stored.identities {
            let key = Zeroizing::new(std::mem::take(&mut identity.key));
            let chain = identity.chain.into_iter().map(CertificateDer::from).collect();
            identities.push(Arc::new(TlsIdentity::new(chain, key).map_err(|_| damaged())?));
        }
        let thumbprint = |bytes: &[u8]| Thumbprint::from_bytes(bytes).ok();
        let (current, source) = (thumbprint(&stored.current), thumbprint(&stored.source));
        Ok(Self { identities, current, source, ..none })
    }

    /// The identity that new handshakes are to show.
    #[must_use]
    pub fn current(&self) -> Option<Arc<TlsIdentity>> {
        self.current.and_then(|current| self.find(&current))
    }

    /// What the configured source held when it was last taken.
    #[must_use]
    pub fn source(&self) -> Option<Thumbprint> {
        self.source
    }

    /// An identity that is kept.
    #[must_use]
    pub fn find(&self, thumbprint: &Thumbprint) -> Option<Arc<TlsIdentity>> {
        self.identities.iter().find(|kept| kept.thumbprint() == *thumbprint).cloned()
    }

    /// The identity by which a node's record knows it, the one in force first.
    #[must_use]
    pub fn first_of(&self, record: &NodeRecord) -> Option<Arc<TlsIdentity>> {
        std::iter::once(&record.thumbprint)
            .chain(&record.other_thumbprints)
            .filter_map(|bytes| Thumbprint::from_bytes(bytes).ok())
            .find_map(|thumbprint| self.find(&thumbprint))
    }

    /// All but the current one.
    #[must_use]
    pub fn others(&self) -> Vec<Arc<TlsIdentity>> {
        let other = |kept: &&Arc<TlsIdentity>| Some(kept.thumbprint()) != self.current;
        self.identities.iter().filter(other).cloned().collect()
    }

    /// Keeps one more.
    ///
    /// # Errors
    /// The file cannot be written; nothing has changed then. So with all that follow.
    pub fn add(&mut self, identity: Arc<TlsIdentity>) -> Result<(), crypto::Error> {
        if self.find(&identity.thumbprint()).is_some() {
            return Ok(());
        }
        let identities = self.identities.iter().cloned().chain([identity]).collect();
        self.change(identities, self.current, self.source)
    }

    /// Makes a kept one the current one.
    pub fn present(&mut self, thumbprint: Thumbprint) -> Result<(), crypto::Error> {
        self.change(self.identities.clone(), Some(thumbprint), self.source)
    }

    /// Makes a kept one the current one and notes that the source held it, in one step: a source whose content was taken
    /// without a note would be taken once more, over what the cluster installs later.
    pub fn present_from_source(&mut self, thumbprint: Thumbprint) -> Result<(), crypto::Error> {
        self.change(self.identities.clone(), Some(thumbprint), Some(thumbprint))
    }

    /// Whether what the source holds is nothing new: what it held before, or what is the current one anyway. The latter is
    /// noted, so that it is not new either when another one has taken its place.
    pub fn holds_nothing_new(&mut self, found: Thumbprint) -> Result<bool, crypto::Error> {
        if self.source == Some(found) {
            return Ok(true);
        }
        if self.current != Some(found) {
            return Ok(false);
        }
        self.change(self.identities.clone(), self.current, Some(found))?;
        Ok(true)
    }

    /// Forgets what is neither current nor to be kept.
    pub fn keep_only(&mut self, keep: impl Fn(&Thumbprint) -> bool) -> Result<bool, crypto::Error> {
        let kept = |identity: &&Arc<TlsIdentity>| {
            let thumbprint = identity.thumbprint();
            Some(thumbprint) == self.current || keep(&thumbprint)
        };
        let identities: Vec<_> = self.identities.iter().filter(kept).cloned().collect();
        if identities.len() == self.identities.len() {
            return Ok(false);
        }
        self.change(identities, self.current, self.source)?;
        Ok(true)
    }

    /// Writes the file again, sealed with the newest key.
    pub fn reseal(&mut self) -> Result<(), crypto::Error> {
        self.change(self.identities.clone(), self.current, self.source)
    }

    /// Written first, and true then.
    fn change(
        &mut self,
        identities: Vec<Arc<TlsIdentity>>,
        current: Option<Thumbprint>,
        source: Option<Thumbprint>,
    ) -> Result<(), crypto::Error> {
        let bytes =
            |it: Option<Thumbprint>| it.map(|it| it.as_bytes().to_vec()).unwrap_or_default();
        let mut stored = StoredIdentities {
            identities: identities
                .iter()
                .map(|identity| StoredIdentity {
                    chain: identity.chain().iter().map(|der| der.to_vec()).collect(),
                    key: identity.expose_key_der().to_vec(),
                })
                .collect(),
            current: bytes(current),
            source: bytes(source),
        };
        let encoded = Zeroizing::new(stored.encode_to_vec());
        stored.identities.iter_mut().for_each(|identity| identity.key.zeroize());
        let sealed = self.keyring.keys().seal(&PLACE, &encoded)?;
        crypto::replace_file(&self.path, &sealed)?;
        (self.identities, self.current, self.source) = (identities, current, source);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::crypto::MasterKey;

    fn identity(name: &str) -> Arc<TlsIdentity> {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![format!("{name}.example")]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let key = Zeroizing::new(key.serialize_der());
        Arc::new(TlsIdentity::new(vec![certificate], key).unwrap())
    }

    #[test]
    fn a_source_is_followed_once_for_each_content() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let keyring = Keyring::open(&data, &MasterKey::random().unwrap()).unwrap();
        let mut kept = Kept::open(&data, keyring.clone()).unwrap();
        let [own, first, second] = ["own", "first", "second"].map(identity);
        for identity in [&own, &first, &second] {
            kept.add(identity.clone()).unwrap();
        }
        let [own, first, second] = [own, first, second].map(|identity| identity.thumbprint());
        kept.present_from_source(own).unwrap();
        // The cluster installs another one, which is put into the source too; then the cluster installs the next.
        kept.present(first).unwrap();
        assert!(kept.holds_nothing_new(own).unwrap());
        assert!(kept.holds_nothing_new(first).unwrap());
        kept.present(second).unwrap();
        // What a kill left: the note is durable with what is presented.
        let mut kept = Kept::open(&data, keyring.clone()).unwrap();
        assert_eq!(kept.current().unwrap().thumbprint(), second);
        assert!(kept.holds_nothing_new(first).unwrap(), "the stale source brings nothing back");
        assert!(!kept.holds_nothing_new(own).unwrap(), "new for this source by now");
        kept.present_from_source(own).unwrap();
        let kept = Kept::open(&data, keyring).unwrap();
        let now = (kept.current().unwrap().thumbprint(), kept.source());
        assert_eq!(now, (own, Some(own)));
    }
}
