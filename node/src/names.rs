//! The names and identifiers that all layers speak. Parsed once at the edge, trusted afterwards.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

use crate::limits;

/// A name or identifier that cannot be accepted, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {why}")]
pub struct Invalid {
    /// What was being parsed, such as "database name".
    pub what: &'static str,
    /// The rule that it broke, in words that continue the sentence.
    pub why: String,
}

impl Invalid {
    fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// A member of the cluster. Allocated from the log, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

/// A database. Allocated from the log, never used again, not even by a database of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseId(pub u64);

/// A Raft group: the cluster group, or the group of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

impl GroupId {
    /// The group that every node belongs to.
    pub const CLUSTER: Self = Self(0);

    /// The database of this group; `None` for the cluster group.
    #[must_use]
    pub fn database(self) -> Option<DatabaseId> {
        (self != Self::CLUSTER).then_some(DatabaseId(self.0))
    }
}

impl From<DatabaseId> for GroupId {
    fn from(id: DatabaseId) -> Self {
        Self(id.0)
    }
}

macro_rules! number_display {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
number_display!(Timestamp, NodeId, DatabaseId, GroupId);

/// SHA-256 of a certificate's DER: the identity of whoever holds its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// The one before all others.
    pub const FIRST: Self = Self([0; 32]);

    /// The thumbprint of a certificate in DER.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// Takes 32 bytes as a thumbprint.
    ///
    /// # Errors
    /// Any other length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        let bytes = bytes.try_into().map_err(|_| {
            Invalid::new("thumbprint", format!("must be 32 bytes, not {}", bytes.len()))
        })?;
        Ok(Self(bytes))
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hex digits, for tables.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thumbprint({})", self.short())
    }
}

impl FromStr for Thumbprint {
    type Err = Invalid;

    /// Takes 64 hex digits in either case, with colons or blanks between them.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = thumbprint_digits(text)?;
        match digits.len() {
            64 => {
                let bytes = hex::decode(&digits);
                Self::from_bytes(&bytes.map_err(|e| Invalid::new(THUMBPRINT, e.to_string()))?)
            }
            40 => Err(sha1_given()),
            n => Err(Invalid::new(THUMBPRINT, format!("must be 64 hex digits, not {n}"))),
        }
    }
}

const THUMBPRINT: &str = "thumbprint";

fn sha1_given() -> Invalid {
    let why = "is SHA-1 (40 hex digits); give the SHA-256 thumbprint (64 hex digits)";
    Invalid::new(THUMBPRINT, why)
}

/// The hex digits of a thumbprint as people copy it, in lower case.
fn thumbprint_digits(text: &str) -> Result<String, Invalid> {
    let text = text.trim_start_matches('\u{feff}');
    if text.len() > 256 {
        return Err(Invalid::new(THUMBPRINT, "is too long; 64 hex digits are expected"));
    }
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ' | '-')).collect();
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Invalid::new(THUMBPRINT, "must be 64 hex digits"));
    }
    Ok(digits.to_ascii_lowercase())
}

/// The beginning of a thumbprint: 1 to 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThumbprintPrefix(String);

impl ThumbprintPrefix {
    /// Whether a thumbprint begins so.
    #[must_use]
    pub fn begins(&self, thumbprint: &Thumbprint) -> bool {
        let (from, to) = self.bounds();
        (from..=to).contains(thumbprint)
    }

    /// The first and the last thumbprint that begin so.
    #[must_use]
    pub fn bounds(&self) -> (Thumbprint, Thumbprint) {
        let padded = |with: u8| {
            let mut digits = [with; 64];
            for (place, digit) in self.0.bytes().take(64).enumerate() {
                digits[place] = digit;
            }
            let mut bytes = [0; 32];
            let _ = hex::decode_to_slice(digits, &mut bytes); // Hex digits, by construction.
            Thumbprint(bytes)
        };
        (padded(b'0'), padded(b'f'))
    }

    /// The digits, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ThumbprintPrefix {
    type Err = Invalid;

    /// Takes hex digits in either case, with colons or blanks between them.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = thumbprint_digits(text)?;
        match digits.len() {
            0 => Err(Invalid::new(THUMBPRINT, "must not be empty")),
            40 => Err(sha1_given()),
            1..=64 => Ok(Self(digits)),
            n => Err(Invalid::new(THUMBPRINT, format!("has at most 64 hex digits, not {n}"))),
        }
    }
}

macro_rules! sixteen_bytes {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Takes 16 bytes.
            ///
            /// # Errors
            /// Any other length.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
                let bytes = bytes.try_into().map_err(|_| {
                    Invalid::new($what, format!("must be 16 bytes, not {}", bytes.len()))
                })?;
                Ok(Self(bytes))
            }

            /// The 16 bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(self.0))
            }
        }
    };
}

sixteen_bytes!(
    /// Names one wish of a client, so that a retry is applied once.
    RequestId, "request id"
);
sixteen_bytes!(
    /// Random bytes of a data folder: a wiped folder is another incarnation.
    Incarnation, "incarnation"
);

impl RequestId {
    /// A new random id (UUID version 7).
    #[must_use]
    pub fn random() -> Self {
        Self(*uuid::Uuid::now_v7().as_bytes())
    }
}

impl FromStr for RequestId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let id = uuid::Uuid::try_parse(text)
            .map_err(|_| Invalid::new("request_id", "must be a UUID, such as `uuidgen` prints"))?;
        Ok(Self(*id.as_bytes()))
    }
}

/// A database's name as it was given; compared by its lower-case key.
#[derive(Debug, Clone)]
pub struct DatabaseName {
    given: String,
    key: String,
}

impl DatabaseName {
    /// Names that no database may have, so that a name can stand anywhere a file name can.
    const RESERVED: [&str; 6] = ["con", "nul", "aux", "prn", "system", "cluster"];

    /// Parses a name: `[A-Za-z0-9_.-]`, 1 to 128 bytes, starting alphanumeric.
    ///
    /// # Errors
    /// The first rule that the name breaks.
    pub fn parse(given: &str) -> Result<Self, Invalid> {
        const WHAT: &str = "database name";
        let invalid = |why: &str| Err(Invalid::new(WHAT, why));
        if given.is_empty() {
            return invalid("must not be empty");
        }
        if given.len() > limits::DATABASE_NAME_BYTES_MAX {
            return invalid("must not be longer than 128 bytes");
        }
        if !given.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
            return invalid("may hold only ASCII letters, digits, `_`, `.` and `-`");
        }
        if !given.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return invalid("must start with a letter or digit");
        }
        if given.ends_with('.') {
            return invalid("must not end with a dot");
        }
        let key = given.to_ascii_lowercase();
        let stem = key.split('.').next().unwrap_or_default();
        let device = stem.len() == 4
            && (stem.starts_with("com") || stem.starts_with("lpt"))
            && stem.ends_with(|c: char| ('1'..='9').contains(&c));
        if device || Self::RESERVED.contains(&stem) || key.starts_with("_internal") {
            return invalid("is reserved");
        }
        Ok(Self { given: given.to_owned(), key })
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.given
    }

    /// The lower-case form: the one key for storage and for permission checks.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl PartialEq for DatabaseName {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl Eq for DatabaseName {}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

fn plain_text(what: &'static str, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    if text.len() > bytes_max {
        return Err(Invalid::new(what, format!("must not be longer than {bytes_max} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid::new(what, "must not hold control characters"));
    }
    Ok(())
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_name!(
    /// A document's id: 1 to 512 bytes of UTF-8 without control characters.
    DocumentId
);
text_name!(
    /// A document's collection: up to 128 bytes without control characters; may be empty.
    CollectionName
);
text_name!(
    /// What people call a certificate; not unique, never an identity.
    CertificateName
);
text_name!(
    /// What people call a node: a DNS label or several.
    NodeName
);

impl DocumentId {
    /// Parses an id.
    ///
    /// # Errors
    /// The first rule that the id breaks.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        const WHAT: &str = "document id";
        if text.is_empty() {
            return Err(Invalid::new(WHAT, "must not be empty"));
        }
        plain_text(WHAT, text, limits::DOCUMENT_ID_BYTES_MAX)?;
        Ok(Self(text.to_owned()))
    }
}

impl CollectionName {
    /// Parses a collection name.
    ///
    /// # Errors
    /// The first rule that the name breaks.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        plain_text("collection", text, limits::COLLECTION_BYTES_MAX)?;
        Ok(Self(text.to_owned()))
    }
}

impl CertificateName {
    /// Parses a display name: not blank, at most 128 characters, no control characters.
    ///
    /// # Errors
    /// The first rule that the name breaks.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        const WHAT: &str = "certificate name";
        if text.trim().is_empty() {
            return Err(Invalid::new(WHAT, "must not be blank"));
        }
        if text.chars().count() > limits::CERTIFICATE_NAME_CHARS_MAX {
            return Err(Invalid::new(WHAT, "must not be longer than 128 characters"));
        }
        plain_text(WHAT, text, limits::CERTIFICATE_NAME_CHARS_MAX * 4)?;
        Ok(Self(text.to_owned()))
    }
}

/// Checks a note on a certificate: may be empty, at most 1,024 characters, no control characters.
///
/// # Errors
/// The first rule that the text breaks.
pub fn check_note(text: &str) -> Result<(), Invalid> {
    remark("note", text, limits::NOTE_CHARS_MAX)
}

/// Checks who answers for a certificate: may be empty, at most 128 characters, no control characters.
///
/// # Errors
/// The first rule that the text breaks.
pub fn check_owner(text: &str) -> Result<(), Invalid> {
    remark("owner", text, limits::OWNER_CHARS_MAX)
}

fn remark(what: &'static str, text: &str, chars_max: usize) -> Result<(), Invalid> {
    if text.chars().count() > chars_max {
        return Err(Invalid::new(what, format!("must not be longer than {chars_max} characters")));
    }
    plain_text(what, text, chars_max * 4)
}

impl NodeName {
    /// Parses a node name: 1 to 63 of `[A-Za-z0-9.-]`, starting and ending alphanumeric.
    ///
    /// # Errors
    /// The first rule that the name breaks.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        const WHAT: &str = "node name";
        if text.is_empty() || text.len() > 63 {
            return Err(Invalid::new(WHAT, "must have 1 to 63 characters"));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')) {
            return Err(Invalid::new(WHAT, "may hold only ASCII letters, digits, `.` and `-`"));
        }
        let alphanumeric = |c: char| c.is_ascii_alphanumeric();
        if !text.starts_with(alphanumeric) || !text.ends_with(alphanumeric) {
            return Err(Invalid::new(WHAT, "must start and end with a letter or digit"));
        }
        Ok(Self(text.to_owned()))
    }
}
