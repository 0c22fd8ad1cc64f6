//! PEM (RFC 7468): sections written, and sections found without copying what stands in the others.

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use zeroize::Zeroizing;

use crate::certificates::Secret;

/// With or without padding: some programs leave it out.
const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One PEM section, lines of 64 characters.
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> Secret {
    // The capacity is exact enough that the text is never moved, so that no copy of a key stays behind.
    let mut body = Zeroizing::new(String::with_capacity(der.len() / 3 * 4 + 8));
    STANDARD.encode_string(der, &mut body);
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 48);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    Secret::new(text)
}

/// A certificate as PEM.
#[must_use]
pub fn certificate_pem(der: &[u8]) -> String {
    pem("CERTIFICATE", der).expose().to_owned()
}

/// A section as it stands in the text.
pub(super) struct Section<'a> {
    /// Between BEGIN and the dashes.
    pub label: &'a [u8],
    /// Between the two lines; `None` where the last is missing.
    body: Option<&'a [u8]>,
}

impl Section<'_> {
    /// What the section encodes; `None` where it is damaged.
    pub fn decode(&self) -> Option<Vec<u8>> {
        let text: Vec<u8> =
            self.body?.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        TOLERANT.decode(text).ok()
    }
}

/// The sections of a text, in order. Nothing is decoded or copied, so that a key that stands among them stays where it is.
pub(super) fn sections(text: &[u8]) -> impl Iterator<Item = Section<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let (line, behind) = line(rest)?;
            rest = behind;
            let Some(label) = marked(line, b"-----BEGIN ") else { continue };
            let body = body(rest, label);
            rest = body.map_or(&[][..], |body| rest.get(body.len()..).unwrap_or_default());
            return Some(Section { label, body });
        }
    })
}

/// What stands before the line that ends a section.
fn body<'a>(text: &'a [u8], label: &[u8]) -> Option<&'a [u8]> {
    let mut rest = text;
    while let Some((line, behind)) = line(rest) {
        if marked(line, b"-----END ") == Some(label) {
            return text.get(..text.len() - rest.len());
        }
        rest = behind;
    }
    None
}

/// The first line, and what follows it.
fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if text.is_empty() {
        return None;
    }
    let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(text.len());
    let (line, behind) = text.split_at_checked(end)?;
    Some((line.trim_ascii(), behind.get(1..).unwrap_or_default()))
}

fn marked<'a>(line: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(mark)?.strip_suffix(b"-----")
}
