//! `rookery recover`: a data folder whose node does not run. Checks it, and puts it under another master key.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand};

use super::{Column, Failed, Result, Row, Session, failed::Exit, output::column};
use crate::{
    crypto::{
        self, KeyId, Keyring, MasterKey, MasterKeySource, PassphraseSource, RecoveryExport,
        RecoveryKey, SEALING_KEY_FILE, SealingKey,
    },
    limits, os,
    own_certificate::Kept,
    storage::{self, Verified},
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Authenticate every record of a data folder; changes nothing; exit code 0, or 9 where something is wrong
    VerifyStore {
        /// The data folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        #[command(flatten)]
        with: With,
    },
    /// Seal the keyring of a data folder by another master key, such as that of another machine
    Reseal {
        /// The data folder
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        #[command(flatten)]
        with: With,
        #[command(flatten)]
        new: New,
    },
}

/// What opens the folder now.
#[derive(Debug, Args)]
#[group(required = true, multiple = false, id = "with")]
pub(super) struct With {
    /// File with the master key
    #[arg(long, value_name = "FILE")]
    master_key: Option<PathBuf>,
    /// Variable of the environment with the master key
    #[arg(long, value_name = "NAME")]
    master_key_env: Option<String>,
    /// Command that prints the master key; its arguments follow after commas
    #[arg(long, value_name = "COMMAND", value_delimiter = ',')]
    master_key_exec: Option<Vec<String>>,
    /// File with the passphrase
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Ask for the passphrase
    #[arg(long)]
    passphrase: bool,
    /// Recovery export of the node; asks for its recovery key, or takes it from ROOKERY_RECOVERY_KEY_FILE
    #[arg(long, value_name = "FILE")]
    recovery: Option<PathBuf>,
}

/// What is to open it from now on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false, id = "new")]
pub(super) struct New {
    /// File with the new master key
    #[arg(long, value_name = "FILE")]
    new_master_key: Option<PathBuf>,
    /// Variable of the environment with the new master key
    #[arg(long, value_name = "NAME")]
    new_master_key_env: Option<String>,
    /// Command that prints the new master key; its arguments follow after commas
    #[arg(long, value_name = "COMMAND", value_delimiter = ',')]
    new_master_key_exec: Option<Vec<String>>,
    /// File with the new passphrase
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// Ask for the new passphrase
    #[arg(long)]
    new_passphrase: bool,
}

/// Names a file with the recovery key, for programs.
const RECOVERY_KEY_FILE: &str = "ROOKERY_RECOVERY_KEY_FILE";
/// More than a recovery key has, with dashes and spaces.
const RECOVERY_KEY_BYTES_MAX: usize = 256;

const RECORDS: &[Column] = &[column("table"), column("group"), column("records")];

impl Verb {
    pub(super) fn run(self, session: &mut Session) -> Result<()> {
        if let Err(error) = crypto::memory::harden() {
            super::message(&format!("core dumps cannot be switched off: {error}"));
        }
        match self {
            Self::VerifyStore { data, with } => verify_store(session, &data, &with),
            Self::Reseal { data, with, new } => reseal(session, &data, &with, &new),
        }
    }
}

fn verify_store(session: &mut Session, data: &Path, with: &With) -> Result<()> {
    let keyring = with.open(data)?;
    let mut found = storage::verify(data, &keyring).map_err(|e| wanting(&e))?;
    verify_files(data, &keyring, &mut found);
    let rows: Vec<Row> = found
        .records
        .iter()
        .map(|((table, group), records)| {
            Row::new().with("table", *table).with("group", group.0).with("records", *records)
        })
        .collect();
    session.out.list(RECORDS, "table", &rows)?;
    for failure in &found.listed {
        super::message(&format!("{}: {}", failure.place, failure.why));
    }
    let records: u64 = found.records.values().sum();
    let looked = format!("{} files and {records} records are authentic", found.files);
    if found.failures == 0 {
        super::message(&looked);
        return Ok(());
    }
    let more = found.failures - found.listed.len() as u64;
    let message = format!(
        "{} failures ({more} of them not listed); {records} records are authentic",
        found.failures
    );
    Err(Failed::wanting(message))
}

/// The files beside store and sentinel that the keyring protects.
fn verify_files(data: &Path, keyring: &Arc<Keyring>, found: &mut Verified) {
    if data.join(SEALING_KEY_FILE).exists() {
        found.files += 1;
        if let Err(error) = SealingKey::open_or_make(data, keyring) {
            found.fail(SEALING_KEY_FILE, error.to_string());
        }
    }
    found.files += 1;
    if let Err(error) = Kept::open(data, keyring.clone()) {
        found.fail("certificates", error.to_string());
    }
}

fn reseal(session: &mut Session, data: &Path, with: &With, new: &New) -> Result<()> {
    let keyring = with.open_to_reseal(data)?;
    let former = keyring.master_key_id();
    let source = new.source();
    let master = MasterKey::load_next(&source, data).map_err(|e| wanting(&e))?;
    keyring.rewrap(&master).map_err(|e| wanting(&e))?;
    let row = Row::new()
        .with("data", data.display().to_string())
        .with("former_master_key", former.to_string())
        .with("master_key", master.id().to_string())
        .with("source", source.to_string());
    session.out.one("data", &row)
}

fn wanting(error: &dyn std::error::Error) -> Failed {
    Failed::wanting(error.to_string())
}

impl With {
    /// Opens the keyring, which takes the folder: refused while a node runs on it.
    fn open(&self, data: &Path) -> Result<Arc<Keyring>> {
        if !data.is_dir() {
            let message = format!("{} is not a folder", data.display());
            return Err(Failed::new(Exit::NotFound, "not_found", message));
        }
        let opened = match &self.recovery {
            Some(export) => Keyring::recover(data, &read_export(export)?),
            None => self.open_with_master(data, |data, source, sealed_by| {
                Keyring::open(data, &MasterKey::load(source, data, Some(sealed_by))?)
            }),
        };
        opened.map_err(|e| wanting(&e))
    }

    /// [`With::open`], after what a change of the master key that was cut short has left to be done: the salt of a
    /// passphrase that the keyring is sealed by already must not make room for the next one.
    fn open_to_reseal(&self, data: &Path) -> Result<Arc<Keyring>> {
        if self.recovery.is_some() || !data.is_dir() {
            return self.open(data);
        }
        let opened = self.open_with_master(data, |data, source, _| {
            Ok(crypto::open_keyring(data, source, None)?.keyring)
        });
        opened.map_err(|e| wanting(&e))
    }

    fn open_with_master(
        &self,
        data: &Path,
        open: impl FnOnce(&Path, &MasterKeySource, KeyId) -> crypto::Result<Arc<Keyring>>,
    ) -> crypto::Result<Arc<Keyring>> {
        let Some(sealed_by) = Keyring::sealed_by(data)? else {
            let found = "no file `keyring`".to_owned();
            return Err(crypto::Error::KeyringMissing { folder: data.to_owned(), found });
        };
        let source = source(
            &self.master_key,
            &self.master_key_env,
            &self.master_key_exec,
            &self.passphrase_file,
        );
        open(data, &source, sealed_by)
    }
}

impl New {
    fn source(&self) -> MasterKeySource {
        source(
            &self.new_master_key,
            &self.new_master_key_env,
            &self.new_master_key_exec,
            &self.new_passphrase_file,
        )
    }
}

/// Clap has seen to it that exactly one is given; none of the first four means a typed passphrase.
fn source(
    file: &Option<PathBuf>,
    variable: &Option<String>,
    command: &Option<Vec<String>>,
    passphrase: &Option<PathBuf>,
) -> MasterKeySource {
    let file = file.clone().map(MasterKeySource::File);
    let variable = variable.clone().map(MasterKeySource::Environment);
    let command = command.clone().map(MasterKeySource::Command);
    let passphrase = passphrase.clone().map(PassphraseSource::File);
    file.or(variable)
        .or(command)
        .unwrap_or(MasterKeySource::Passphrase(passphrase.unwrap_or(PassphraseSource::Prompt)))
}

fn read_export(path: &Path) -> Result<RecoveryExport> {
    let length = std::fs::metadata(path).map_err(|e| Failed::file(path, &e))?.len();
    if length > limits::KEYRING_BYTES_MAX as u64 * 2 {
        return Err(Failed::wanting(format!("{} is no recovery export", path.display())));
    }
    let content = std::fs::read(path).map_err(|e| Failed::file(path, &e))?;
    let text = match std::env::var_os(RECOVERY_KEY_FILE) {
        Some(file) => {
            let file = PathBuf::from(file);
            zeroize::Zeroizing::new(std::fs::read(&file).map_err(|e| Failed::file(&file, &e))?)
        }
        None => os::terminal::secret("Recovery key", RECOVERY_KEY_BYTES_MAX)
            .map_err(|e| Failed::usage(format!("a recovery key is to be typed: {e}")))?,
    };
    let text = std::str::from_utf8(&text)
        .map_err(|_| Failed::usage("the recovery key is letters and digits"))?;
    let key = RecoveryKey::parse(text).map_err(|e| wanting(&e))?;
    RecoveryExport::open(path, &content, &key).map_err(|e| wanting(&e))
}
