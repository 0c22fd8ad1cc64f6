//! The contexts of this user: a folder each, readable by nobody else.
//!
//! ```text
//! $ROOKERY_CONFIG, or $XDG_CONFIG_HOME/rookery, or ~/.config/rookery     0700
//!   current                    the name of the context that is used      0600
//!   contexts/<name>/           context.toml, <name>.crt, <name>.key, …   0700 / 0600
//! ```

use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use clap::Subcommand;
use rookery_client::{
    Context,
    context::{CONTEXT_FILE, ContextFile, package_files},
};

use super::{Column, Failed, Result, Row, Session, output::column};

/// Largest package in bytes.
const PACKAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Longest name of a context.
const NAME_BYTES_MAX: usize = 100;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a context out of a client package
    Import {
        /// The package (.zip)
        package: PathBuf,
        /// Its name here; the certificate's name where none is given
        #[arg(long)]
        name: Option<String>,
        /// Replace a context of this name
        #[arg(long)]
        replace: bool,
        /// Keep using the current context
        #[arg(long)]
        no_use: bool,
    },
    /// List the contexts
    List,
    /// Use this context from now on
    Use {
        /// Its name
        name: String,
    },
    /// Show a context, the current one where none is named
    Show {
        /// Its name
        name: Option<String>,
    },
    /// Delete a context and its key from this machine; the certificate stays registered
    Delete {
        /// Its name
        name: String,
    },
}

const COLUMNS: &[Column] =
    &[column("current"), column("name"), column("addresses"), column("thumbprint")];

impl Verb {
    pub(super) fn run(self, session: &mut Session) -> Result<()> {
        let store = Store::of_user()?;
        match self {
            Self::Import { package, name, replace, no_use } => {
                let bytes = read_package(&package)?;
                let name = store.import(&bytes, name.as_deref(), replace)?;
                if !no_use {
                    store.set_current(&name)?;
                }
                session.out.one("name", &store.row(&name)?)
            }
            Self::List => {
                let rows = store
                    .names()?
                    .iter()
                    .map(|name| store.row(name))
                    .collect::<Result<Vec<_>>>()?;
                session.out.list(COLUMNS, "name", &rows)
            }
            Self::Use { name } => {
                store.load(&name)?;
                store.set_current(&name)?;
                session.out.one("name", &store.row(&name)?)
            }
            Self::Show { name } => {
                let name = match name.or(store.current()?) {
                    Some(name) => name,
                    None => return Err(no_context(&store)),
                };
                session.out.one("name", &store.row(&name)?)
            }
            Self::Delete { name } => {
                let folder = store.existing(&name)?;
                session.confirm("This deletes the context and its private key", &name)?;
                fs::remove_dir_all(&folder).map_err(|e| Failed::file(&folder, &e))?;
                if store.current()?.as_deref() == Some(name.as_str()) {
                    let path = store.folder.join("current");
                    fs::remove_file(&path).map_err(|e| Failed::file(&path, &e))?;
                }
                session.out.one("deleted", &Row::new().with("deleted", name))
            }
        }
    }
}

/// The context to use: flags, then environment, then the current one.
pub(super) fn resolve(file: Option<&Path>, name: Option<&str>) -> Result<Context> {
    if let Some(file) = file {
        return load_file(file);
    }
    if let Some(name) = name {
        return Store::of_user()?.load(name);
    }
    if let Some(file) = env::var_os("ROOKERY_CONTEXT_FILE") {
        return load_file(Path::new(&file));
    }
    if let Ok(name) = env::var("ROOKERY_CONTEXT") {
        return Store::of_user()?.load(&name);
    }
    let store = Store::of_user()?;
    match store.current()? {
        Some(name) => store.load(&name),
        None => Err(no_context(&store)),
    }
}

fn no_context(store: &Store) -> Failed {
    let names = store.names().unwrap_or_default();
    if !names.is_empty() {
        let names = names.join(", ");
        return Failed::usage(format!("choose a context with `rookery context use NAME`: {names}"));
    }
    Failed::usage(
        "there is no context yet: import a package with `rookery context import PACKAGE.zip`, name one with \
         --context-file, or start a playground with `rookery dev`",
    )
}

fn load_file(path: &Path) -> Result<Context> {
    if path.extension().is_some_and(|extension| extension == "zip") {
        return Ok(Context::from_package(&read_package(path)?)?);
    }
    let path = if path.is_dir() { path.join(CONTEXT_FILE) } else { path.to_owned() };
    Ok(Context::load(&path)?)
}

fn read_package(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>> {
    let length = fs::metadata(path).map_err(|e| Failed::file(path, &e))?.len();
    if length > PACKAGE_BYTES_MAX {
        return Err(Failed::usage(format!("{} is too large for a package", path.display())));
    }
    fs::read(path).map(zeroize::Zeroizing::new).map_err(|e| Failed::file(path, &e))
}

/// The folder of contexts.
pub(super) struct Store {
    folder: PathBuf,
}

impl Store {
    /// The one of this user.
    pub(super) fn of_user() -> Result<Self> {
        let folder = if let Some(folder) = env::var_os("ROOKERY_CONFIG") {
            PathBuf::from(folder)
        } else if let Some(folder) = env::var_os("XDG_CONFIG_HOME").filter(|f| !f.is_empty()) {
            PathBuf::from(folder).join("rookery")
        } else if let Some(home) = env::var_os("HOME").filter(|f| !f.is_empty()) {
            PathBuf::from(home).join(".config/rookery")
        } else {
            return Err(Failed::usage(
                "set ROOKERY_CONFIG to a folder for contexts: HOME is not set",
            ));
        };
        Ok(Self { folder })
    }

    /// Writes a package's files; gives the context's name.
    pub(super) fn import(
        &self,
        package: &[u8],
        name: Option<&str>,
        replace: bool,
    ) -> Result<String> {
        // Everything is checked before anything is written.
        let context = Context::from_package(package)?;
        let name = checked_name(name.unwrap_or(&context.name))?.to_owned();
        let folder = self.context_folder(&name);
        if folder.exists() {
            if !replace {
                return Err(Failed::conflict(format!(
                    "there is a context {name} already: give another --name, or --replace it"
                )));
            }
            fs::remove_dir_all(&folder).map_err(|e| Failed::file(&folder, &e))?;
        }
        private_folder(&folder)?;
        for (file, content) in package_files(package)? {
            write_private(&folder.join(file), &content)?;
        }
        Ok(name)
    }

    pub(super) fn set_current(&self, name: &str) -> Result<()> {
        private_folder(&self.folder)?;
        write_private(&self.folder.join("current"), name.as_bytes())
    }

    /// Removes a context that was imported for a while, and goes back to the one before.
    pub(super) fn forget(&self, name: &str, before: Option<&str>) -> Result<()> {
        let folder = self.context_folder(checked_name(name)?);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|e| Failed::file(&folder, &e))?;
        }
        if self.current()?.as_deref() != Some(name) {
            return Ok(());
        }
        match before.filter(|before| *before != name) {
            Some(before) => self.set_current(before),
            None => {
                let path = self.folder.join("current");
                fs::remove_file(&path).map_err(|e| Failed::file(&path, &e))
            }
        }
    }

    pub(super) fn current(&self) -> Result<Option<String>> {
        let path = self.folder.join("current");
        match fs::read_to_string(&path) {
            Ok(name) => Ok(Some(checked_name(name.trim())?.to_owned())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Failed::file(&path, &e)),
        }
    }

    fn names(&self) -> Result<Vec<String>> {
        let folder = self.folder.join("contexts");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Failed::file(&folder, &e)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| checked_name(name).is_ok())
            .collect();
        names.sort();
        Ok(names)
    }

    fn load(&self, name: &str) -> Result<Context> {
        Ok(Context::load(&self.existing(name)?.join(CONTEXT_FILE))?)
    }

    fn row(&self, name: &str) -> Result<Row> {
        let path = self.existing(name)?.join(CONTEXT_FILE);
        let text = fs::read(&path).map_err(|e| Failed::file(&path, &e))?;
        let file = ContextFile::parse(&text)?;
        Ok(Row::new()
            .with("current", self.current()?.as_deref() == Some(name))
            .with("name", name)
            .with("addresses", file.addresses)
            .with("thumbprint", file.thumbprint)
            .with("cluster_id", file.cluster_id)
            .with("file", path.display().to_string()))
    }

    fn existing(&self, name: &str) -> Result<PathBuf> {
        let folder = self.context_folder(checked_name(name)?);
        if folder.is_dir() {
            Ok(folder)
        } else {
            Err(Failed::not_found(format!(
                "there is no context {name}; see `rookery context list`"
            )))
        }
    }

    fn context_folder(&self, name: &str) -> PathBuf {
        self.folder.join("contexts").join(name)
    }
}

/// A name that is a plain folder's name.
fn checked_name(name: &str) -> Result<&str> {
    let plain = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && !name.contains(['/', '\\', '\0'])
        && !name.chars().any(char::is_control);
    plain.then_some(name).ok_or_else(|| {
        Failed::usage(format!("{name:?} cannot be a context's name: choose one with --name"))
    })
}

/// Makes a folder, and those above it, that nobody else can look into.
pub(super) fn private_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Failed::file(path, &e))
}

/// Writes a file that nobody else can read: a new one beside it, then a rename.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let write = || {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|e| Failed::file(path, &e))
}

/// A place for a file with a secret, proved to be writable before the secret is made. Nothing stays there unless
/// something is put into it.
pub(super) struct Place {
    path: PathBuf,
    filled: bool,
}

impl Place {
    /// Takes a path where nothing stands yet.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(path).map_err(|e| Failed::file(path, &e))?;
        Ok(Self { path: path.to_owned(), filled: false })
    }

    /// Puts the content there.
    pub(super) fn fill(mut self, content: &[u8]) -> Result<()> {
        write_private(&self.path, content)?;
        self.filled = true;
        Ok(())
    }

    /// The path, for people.
    pub(super) fn display(&self) -> String {
        self.path.display().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.filled {
            let _ = fs::remove_file(&self.path); // Empty, and nobody's.
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::{io::Cursor, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn package(extra: &[(&str, &[u8])]) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let file = ContextFile {
            name: "alice".into(),
            addresses: vec!["n1:7443".into()],
            certificate: "alice.crt".into(),
            key: "alice.key".into(),
            ca: "ca.crt".into(),
            ..ContextFile::default()
        };
        let described = file.to_toml();
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let files = [
            (CONTEXT_FILE, described.as_bytes()),
            ("alice.crt", certificate.as_bytes()),
            ("alice.key", key.as_bytes()),
            ("ca.crt", certificate.as_bytes()),
        ];
        for (name, content) in files.iter().chain(extra) {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn imported_contexts_are_private_listed_and_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store { folder: folder.path().join("config") };
        assert_eq!(store.import(&package(&[]), None, false).unwrap(), "alice");
        store.set_current("alice").unwrap();
        assert_eq!(store.names().unwrap(), ["alice"]);
        assert_eq!(store.current().unwrap().as_deref(), Some("alice"));
        assert_eq!(store.load("alice").unwrap().name, "alice");
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(store.context_folder("alice")), 0o700);
        assert_eq!(mode(store.context_folder("alice").join("alice.key")), 0o600);
        let again = store.import(&package(&[]), None, false).unwrap_err();
        assert_eq!(again.exit, super::super::Exit::Conflict);
        store.import(&package(&[]), None, true).unwrap();
        store.import(&package(&[]), Some("bob"), false).unwrap();
        assert_eq!(store.names().unwrap(), ["alice", "bob"]);
    }

    #[test]
    fn a_place_is_proved_before_and_empty_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        drop(Place::take(&path).unwrap());
        assert!(!path.exists());
        Place::take(&path).unwrap().fill(b"x").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
        assert!(Place::take(&path).is_err());
        assert!(Place::take(&folder.path().join("none/a.zip")).is_err());
    }

    #[test]
    fn packages_and_names_that_write_elsewhere_are_refused_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store { folder: folder.path().join("config") };
        for name in ["../evil", "/tmp/evil", "a/b", "..\\evil", ".ssh"] {
            assert!(store.import(&package(&[(name, b"x")]), None, false).is_err(), "{name}");
            assert!(store.import(&package(&[]), Some(name), false).is_err(), "{name}");
        }
        assert!(!store.folder.exists());
        assert!(store.load("../contexts").is_err());
    }
}
