//! The home of one browser: its certificates, its settings, its downloads.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{identity::Identity, machine};

/// The password of PKCS#12 files on their way into a store.
const PASSWORD: &str = "on its way";

/// A new home folder with an NSS store, as a person who has just installed a browser has it.
pub struct Profile {
    folder: TempDir,
}

impl Profile {
    /// A profile that trusts the authority in the file `authority` and holds no certificate of its own.
    ///
    /// # Errors
    /// The store cannot be made.
    pub fn new(authority: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rookery-browser-").tempdir()?;
        let profile = Self { folder };
        fs::create_dir_all(profile.store())?;
        fs::create_dir_all(profile.downloads())?;
        let (store, authority) = (profile.database(), authority.display().to_string());
        machine::run("certutil", &["-N", "--empty-password", "-d", &store])?;
        let trust = ["-A", "-n", "authority", "-t", "C,,", "-i", &authority, "-d", &store];
        machine::run("certutil", &trust)?;
        Ok(profile)
    }

    /// [`Profile::new`] with the certificate of `identity`.
    ///
    /// # Errors
    /// The store cannot be made.
    pub fn with(authority: &Path, identity: &Identity) -> Result<Self> {
        let profile = Self::new(authority)?;
        let path = |name: &str| profile.home().join(name).display().to_string();
        let (pem, pfx) = (path("identity.pem"), path("identity.pfx"));
        fs::write(&pem, [identity.certificate_pem(), identity.key_pem()].concat())?;
        let password = format!("pass:{PASSWORD}");
        let export = ["pkcs12", "-export", "-in", &pem, "-out", &pfx, "-passout", &password];
        machine::run("openssl", &[&export[..], &["-name", &identity.name]].concat())?;
        profile.import(Path::new(&pfx), PASSWORD)?;
        fs::remove_file(pem)?;
        Ok(profile)
    }

    /// Imports a PKCS#12 file, as the settings of a browser do.
    ///
    /// # Errors
    /// It is none, or its password is another.
    pub fn import(&self, pfx: &Path, password: &str) -> Result<()> {
        let (pfx, store) = (pfx.display().to_string(), self.database());
        let import = ["-i", &pfx, "-W", password, "-K", "", "-d", &store];
        machine::run("pk12util", &import).map(drop).context("importing a certificate")
    }

    /// The folder that `HOME` names.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.folder.path()
    }

    /// Where downloads go.
    #[must_use]
    pub fn downloads(&self) -> PathBuf {
        self.home().join("Downloads")
    }

    fn store(&self) -> PathBuf {
        self.home().join(".pki/nssdb")
    }

    fn database(&self) -> String {
        format!("sql:{}", self.store().display())
    }
}
