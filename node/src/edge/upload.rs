//! What somebody uploads as a certificate: read within bounds of time and memory, and judged before it is registered.

use tonic::Status;
use zeroize::Zeroizing;

use crate::{
    certificates::{self, Parsed, Refused, Upload, Usage},
    edge::{Edge, convert},
    limits,
    names::Timestamp,
};

/// Reads an upload: PEM, DER or PKCS#12. Bytes and password are zeroized when it is done.
///
/// # Errors
/// INVALID_ARGUMENT for `certificate` or `password`; RESOURCE_EXHAUSTED where too many PKCS#12 files wait already.
pub async fn read(edge: &Edge, certificate: Vec<u8>, password: String) -> Result<Upload, Status> {
    let (certificate, password) = (Zeroizing::new(certificate), Zeroizing::new(password));
    if password.len() > limits::PKCS12_PASSWORD_BYTES_MAX {
        let why = format!("must not be longer than {} bytes", limits::PKCS12_PASSWORD_BYTES_MAX);
        return Err(convert::invalid("password", why));
    }
    // What needs no key derivation is done in microseconds.
    let costly = certificates::is_pkcs12(&certificate);
    let reading = move || certificates::from_upload(&certificate, Some(&password));
    let read = if costly { edge.work.run(reading).await? } else { reading() };
    read.map_err(refused)
}

/// Judges every certificate of an upload, the primary first.
///
/// # Errors
/// INVALID_ARGUMENT for `certificate`; of several it says which.
pub fn judge(upload: &Upload, usage: Usage, at: Timestamp) -> Result<Vec<Parsed>, Status> {
    let several = upload.certificates.len() > 1;
    let judged = upload.certificates.iter().map(|der| {
        let parsed = certificates::parse(der).map_err(refused)?;
        match certificates::check_registrable(&parsed, usage, at) {
            Ok(()) => Ok(parsed),
            Err(why) if several => {
                let which = parsed.thumbprint.short();
                Err(convert::invalid(
                    "certificate",
                    format!("the one of thumbprint {which}…: {why}"),
                ))
            }
            Err(why) => Err(refused(why)),
        }
    });
    judged.collect()
}

/// A refusal, with the field that is to blame.
#[must_use]
pub fn refused(why: Refused) -> Status {
    let password = matches!(why, Refused::PasswordRequired | Refused::WrongPassword);
    convert::invalid(if password { "password" } else { "certificate" }, why)
}
