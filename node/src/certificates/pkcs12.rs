//! Certificates out of a PKCS#12 file (RFC 7292), with every bound held before a key is derived.
//!
//! ```text
//! PFX ─ authSafe ─ parts (SafeContents), each plain or encrypted ─ bags: certificate, key, shrouded key, more bags …
//!     └ macData: proves password and integrity
//! ```
//!
//! 1. The whole outside is read: parts, ciphers, rounds. What is too much is refused here.
//! 2. The MAC is checked. A file without one proves nothing and is refused.
//! 3. Encrypted parts are decrypted, into memory that is zeroized.
//! 4. Certificates are taken out of the bags. Keys are seen, and never decrypted or copied, except where a server's key is
//!    asked for: one, whose rounds count with all others.
//!
//! A library that reads the whole file would derive a key for each of the thousands of key bags that an encrypted part
//! may hide, with a million rounds each. DER only: a reader that takes BER too is another reader.

use zeroize::Zeroizing;

use crate::{
    certificates::{Refused, der},
    crypto::pkcs12::{Hash, Mac, OldCipher, Password, Scheme},
    limits,
};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
/// `[0] EXPLICIT`, and what BER makes of `[0] IMPLICIT OCTET STRING`.
const CONTEXT_0: u8 = 0xa0;
/// `[0] IMPLICIT OCTET STRING`.
const CONTEXT_0_OCTETS: u8 = 0x80;

// Object identifiers as they stand in DER.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x06];
const BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01];
const X509: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];
const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const PBE_3DES: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01, 0x03];
const PBE_RC2_40: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01, 0x06];
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
/// What SHA-2 hashes begin with; the last byte says which.
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

const NO_KEY: &str = "the PKCS#12 file holds no private key with its certificate";

/// What a file held.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Certificates in DER, in the file's order; not looked at yet.
    pub certificates: Vec<Vec<u8>>,
    /// Whether a private key was among them; it was not decrypted, and copied only where one is wanted.
    pub private_key: bool,
    /// The one that is wanted.
    key: Option<Key>,
    key_wanted: bool,
    bags: usize,
}

/// A private key as it stands in its bag: PKCS#8, or that and how it is encrypted.
enum Key {
    Plain(Zeroizing<Vec<u8>>),
    Shrouded(Scheme, Vec<u8>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// One part of the file.
enum Part<'a> {
    Plain(&'a [u8]),
    Encrypted(Scheme, &'a [u8]),
}

/// Takes the certificates out of a PKCS#12 file.
///
/// # Errors
/// What is damaged, BER, too much in any direction, unsupported, without MAC, or under another password.
pub(super) fn read(bytes: &[u8], password: Option<&str>) -> Result<Contents, Refused> {
    open(bytes, password, Contents::default()).map(|opened| opened.contents)
}

/// Takes the certificates and the one private key (PKCS#8, wiped when dropped) out of a PKCS#12 file.
///
/// # Errors
/// As [`read`]; and where there is no key, more than one, or one that does not open.
pub(super) fn read_with_key(
    bytes: &[u8],
    password: Option<&str>,
) -> Result<(Contents, Zeroizing<Vec<u8>>), Refused> {
    let wanted = Contents { key_wanted: true, ..Contents::default() };
    let Opened { mut contents, password, rounds_total } = open(bytes, password, wanted)?;
    let key = match contents.key.take() {
        None => return Err(Refused::Malformed(NO_KEY)),
        Some(Key::Plain(key)) => key,
        Some(Key::Shrouded(scheme, ciphertext)) => {
            let rounds_total = rounds_total.saturating_add(scheme.cost());
            within_bounds(u64::from(scheme.rounds()), rounds_total)?;
            scheme
                .decrypt(&password, &ciphertext)
                .ok_or(Refused::Pkcs12("its private key cannot be decrypted"))?
        }
    };
    Ok((contents, key))
}

/// A file after all of its parts.
struct Opened {
    contents: Contents,
    password: Password,
    /// All rounds of key derivation that it took.
    rounds_total: u64,
}

fn open(bytes: &[u8], password: Option<&str>, mut contents: Contents) -> Result<Opened, Refused> {
    let password = password.filter(|text| !text.is_empty());
    // 1.
    let outside = Outside::read(bytes)?;
    let rounds_total = outside.affordable(password.is_some())?;
    // 2.
    let password = outside.proven(password)?;
    // 3.
    for part in &outside.parts {
        match part {
            Part::Plain(bags) => contents.take(bags)?,
            Part::Encrypted(scheme, ciphertext) => {
                let plain: Zeroizing<Vec<u8>> = scheme
                    .decrypt(&password, ciphertext)
                    .ok_or(Refused::Pkcs12("a part of it cannot be decrypted"))?;
                contents.take(&plain)?;
            }
        }
    }
    Ok(Opened { contents, password, rounds_total })
}

/// Holds the most rounds of one key, and those of all keys, against the bounds.
fn within_bounds(most: u64, total: u64) -> Result<(), Refused> {
    for (rounds, rounds_max) in
        [(most, limits::PKCS12_ROUNDS_MAX), (total, limits::PKCS12_ROUNDS_TOTAL_MAX)]
    {
        if rounds > rounds_max {
            return Err(Refused::Pkcs12Rounds { rounds, rounds_max });
        }
    }
    Ok(())
}

/// All of a file that can be read without a password.
struct Outside<'a> {
    /// What the MAC is over.
    authenticated: &'a [u8],
    parts: Vec<Part<'a>>,
    mac: Mac,
}

impl<'a> Outside<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Refused> {
        let (mut pfx, rest) = Fields::open(bytes, SEQUENCE)?;
        if !rest.is_empty() {
            return Err(Refused::Pkcs12("bytes follow it"));
        }
        if pfx.number()? != 3 {
            return Err(Refused::Pkcs12Unsupported("its version is not 3"));
        }
        let mut safe = pfx.group(SEQUENCE)?;
        let kind = safe.take(OID)?;
        if kind != DATA {
            let why = "it is protected by a signature instead of a password";
            return Err(Refused::Pkcs12Unsupported(why));
        }
        let authenticated = safe.group(CONTEXT_0)?.take(OCTETS)?;
        if pfx.is_empty() {
            return Err(Refused::Pkcs12WithoutMac);
        }
        let mac = mac(pfx.group(SEQUENCE)?)?;
        Ok(Self { authenticated, parts: parts(authenticated)?, mac })
    }

    /// Holds all rounds against the bounds; answers their sum.
    fn affordable(&self, password_given: bool) -> Result<u64, Refused> {
        // Without a password there are two ways to write none.
        let mac = u64::from(self.mac.rounds) * if password_given { 1 } else { 2 };
        let mut most = u64::from(self.mac.rounds);
        let mut total = mac;
        for part in &self.parts {
            if let Part::Encrypted(scheme, _) = part {
                most = most.max(u64::from(scheme.rounds()));
                total = total.saturating_add(scheme.cost());
            }
        }
        within_bounds(most, total)?;
        Ok(total)
    }

    /// The password, once the MAC has proved it.
    fn proven(&self, given: Option<&str>) -> Result<Password, Refused> {
        let candidates = match given {
            Some(text) => vec![Password::new(text)],
            None => vec![Password::new(""), Password::absent()],
        };
        let holds = |password: &Password| self.mac.holds(password, self.authenticated);
        candidates.into_iter().find(holds).ok_or(match given {
            Some(_) => Refused::WrongPassword,
            None => Refused::PasswordRequired,
        })
    }
}

fn mac(mut fields: Fields<'_>) -> Result<Mac, Refused> {
    let mut digest = fields.group(SEQUENCE)?;
    let hash = match digest.group(SEQUENCE)?.take(OID)? {
        SHA1 => Hash::Sha1,
        oid => match oid.strip_prefix(SHA2) {
            Some([1]) => Hash::Sha256,
            Some([2]) => Hash::Sha384,
            Some([3]) => Hash::Sha512,
            Some([4]) => Hash::Sha224,
            _ => return Err(Refused::Pkcs12Unsupported("its MAC is of a kind unknown here")),
        },
    };
    let expected = digest.take(OCTETS)?.to_vec();
    let salt = fields.take(OCTETS)?.to_vec();
    let rounds = if fields.is_empty() { 1 } else { fields.rounds()? };
    Ok(Mac { hash, salt, rounds, expected })
}

fn parts(authenticated: &[u8]) -> Result<Vec<Part<'_>>, Refused> {
    let (mut safes, rest) = Fields::open(authenticated, SEQUENCE)?;
    if !rest.is_empty() {
        return Err(Refused::Pkcs12("bytes follow its parts"));
    }
    let mut parts = Vec::new();
    while !safes.is_empty() {
        if parts.len() == limits::PKCS12_PARTS_MAX {
            return Err(Refused::Pkcs12TooMany("parts", limits::PKCS12_PARTS_MAX));
        }
        parts.push(part(safes.group(SEQUENCE)?)?);
    }
    Ok(parts)
}

fn part(mut fields: Fields<'_>) -> Result<Part<'_>, Refused> {
    let kind = fields.take(OID)?;
    let mut content = fields.group(CONTEXT_0)?;
    if kind == DATA {
        return Ok(Part::Plain(content.take(OCTETS)?));
    }
    if kind != ENCRYPTED_DATA {
        let why = "a part of it is encrypted for a certificate instead of a password";
        return Err(Refused::Pkcs12Unsupported(why));
    }
    let mut encrypted = content.group(SEQUENCE)?;
    if encrypted.number()? != 0 {
        return Err(Refused::Pkcs12Unsupported("an encrypted part of it has an unknown version"));
    }
    let mut inner = encrypted.group(SEQUENCE)?;
    if inner.take(OID)? != DATA {
        return Err(Refused::Pkcs12("an encrypted part of it does not hold data"));
    }
    let scheme = scheme(inner.whole(SEQUENCE)?)?;
    let ciphertext = match inner.next()? {
        (CONTEXT_0_OCTETS, ciphertext) => ciphertext,
        (CONTEXT_0, _) => return Err(Refused::Pkcs12Ber),
        _ => return Err(Refused::Pkcs12("an encrypted part of it is empty")),
    };
    Ok(Part::Encrypted(scheme, ciphertext))
}

fn scheme(algorithm: &[u8]) -> Result<Scheme, Refused> {
    let unsupported = Refused::Pkcs12Unsupported("its encryption is of a kind unknown here");
    let (mut fields, _) = Fields::open(algorithm, SEQUENCE)?;
    let cipher = match fields.take(OID)? {
        PBES2 => return Scheme::modern(algorithm).ok_or(unsupported),
        PBE_3DES => OldCipher::TripleDes,
        PBE_RC2_40 => OldCipher::Rc2,
        _ => return Err(unsupported),
    };
    let mut parameters = fields.group(SEQUENCE)?;
    let salt = parameters.take(OCTETS)?.to_vec();
    Ok(Scheme::Old { cipher, salt, rounds: parameters.rounds()? })
}

impl Contents {
    /// Takes what is wanted out of one part.
    fn take(&mut self, part: &[u8]) -> Result<(), Refused> {
        let (bags, rest) = Fields::open(part, SEQUENCE)?;
        if !rest.is_empty() {
            return Err(Refused::Pkcs12("bytes follow the bags of a part"));
        }
        self.bags(bags, 0)
    }

    fn bags(&mut self, mut bags: Fields<'_>, depth: usize) -> Result<(), Refused> {
        if depth > limits::PKCS12_DEPTH_MAX {
            return Err(Refused::Pkcs12TooMany("levels of bags", limits::PKCS12_DEPTH_MAX));
        }
        while !bags.is_empty() {
            if self.bags == limits::PKCS12_BAGS_MAX {
                return Err(Refused::Pkcs12TooMany("bags", limits::PKCS12_BAGS_MAX));
            }
            self.bags += 1;
            let mut bag = bags.group(SEQUENCE)?;
            let kind = bag.take(OID)?;
            let mut value = bag.group(CONTEXT_0)?;
            match kind.strip_prefix(BAG) {
                // Key, shrouded key.
                Some([1 | 2]) if !self.key_wanted => self.private_key = true,
                Some([1]) => {
                    let key = Zeroizing::new(value.whole(SEQUENCE)?.to_vec());
                    self.key(Key::Plain(key))?;
                }
                Some([2]) => {
                    let mut shrouded = value.group(SEQUENCE)?;
                    let scheme = scheme(shrouded.whole(SEQUENCE)?)?;
                    self.key(Key::Shrouded(scheme, shrouded.take(OCTETS)?.to_vec()))?;
                }
                Some([3]) => self.certificate(value.group(SEQUENCE)?)?,
                Some([6]) => self.bags(value.group(SEQUENCE)?, depth + 1)?,
                // Revocation lists, secrets, and what is unknown.
                _ => {}
            }
        }
        Ok(())
    }

    fn key(&mut self, key: Key) -> Result<(), Refused> {
        self.private_key = true;
        match self.key.replace(key) {
            None => Ok(()),
            Some(_) => Err(Refused::Pkcs12TooMany("private keys", 1)),
        }
    }

    fn certificate(&mut self, mut bag: Fields<'_>) -> Result<(), Refused> {
        if bag.take(OID)? != X509 {
            return Err(Refused::Pkcs12Unsupported("a certificate in it is not X.509"));
        }
        let der = bag.group(CONTEXT_0)?.take(OCTETS)?;
        if self.certificates.len() == limits::UPLOAD_CERTIFICATES_MAX {
            return Err(Refused::TooManyCertificates(limits::UPLOAD_CERTIFICATES_MAX));
        }
        self.certificates.push(der.to_vec());
        Ok(())
    }
}

/// The fields of a constructed value, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields of the value that `bytes` begin with, and what follows it.
    fn open(bytes: &'a [u8], tag: u8) -> Result<(Self, &'a [u8]), Refused> {
        let mut fields = Self(bytes);
        let opened = fields.group(tag)?;
        Ok((opened, fields.0))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tag and content of the next field.
    fn next(&mut self) -> Result<(u8, &'a [u8]), Refused> {
        let (tag, content, rest) = der::split_value(self.0).map_err(|refused| {
            let ber = matches!(refused, Refused::NotCanonical(_));
            if ber { Refused::Pkcs12Ber } else { Refused::Pkcs12("it is cut off") }
        })?;
        self.0 = rest;
        Ok((tag, content))
    }

    /// The content of the next field, which has this tag.
    fn take(&mut self, tag: u8) -> Result<&'a [u8], Refused> {
        match self.next()? {
            (found, content) if found == tag => Ok(content),
            // A string in pieces.
            (found, _) if found == tag | 0x20 => Err(Refused::Pkcs12Ber),
            _ => Err(Refused::Pkcs12("a field of it is not what it should be")),
        }
    }

    /// The fields of the next field, which has this tag.
    fn group(&mut self, tag: u8) -> Result<Self, Refused> {
        self.take(tag).map(Self)
    }

    /// The next field with tag and length.
    fn whole(&mut self, tag: u8) -> Result<&'a [u8], Refused> {
        let before = self.0;
        self.take(tag)?;
        let bytes = before.len() - self.0.len();
        before.get(..bytes).ok_or(Refused::Pkcs12("it is cut off"))
    }

    /// The next field as a number that is not negative.
    fn number(&mut self) -> Result<u64, Refused> {
        let digits = self.take(INTEGER)?;
        let digits = digits.strip_prefix(&[0]).unwrap_or(digits);
        if digits.len() > 8 {
            return Ok(u64::MAX);
        }
        Ok(digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit)))
    }

    /// The next field as a number of rounds: 1 and more.
    fn rounds(&mut self) -> Result<u32, Refused> {
        let rounds = self.number()?;
        let rounds_max = limits::PKCS12_ROUNDS_MAX;
        match u32::try_from(rounds) {
            Ok(0) => Err(Refused::Pkcs12("a number of rounds in it is 0")),
            Ok(rounds) => Ok(rounds),
            Err(_) => Err(Refused::Pkcs12Rounds { rounds, rounds_max }),
        }
    }
}
