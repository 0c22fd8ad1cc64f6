//! What a certificate is.
#![allow(missing_docs)]
use crate::names::{Thumbprint, Timestamp};
#[derive(Debug)]
pub struct Parsed {
    pub thumbprint: Thumbprint,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}
pub fn parse(der: &[u8]) -> Result<Parsed, String> {
    let (rest, certificate) =
        x509_parser::parse_x509_certificate(der).map_err(|e| e.to_string())?;
    if !rest.is_empty() {
        return Err("trailing bytes".into());
    }
    let validity = certificate.validity();
    Ok(Parsed {
        thumbprint: Thumbprint::of(der),
        not_before: Timestamp(validity.not_before.timestamp() * 1000),
        not_after: Timestamp(validity.not_after.timestamp() * 1000),
    })
}
