//! Planted words, and the search for them in every file of a folder: nothing a client stored may be readable on disk.

use std::{fs, io::Read as _, path::Path};

use anyhow::{Context as _, Result};
use base64::{
    Engine as _,
    engine::{
        GeneralPurpose,
        general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
    },
};

/// Where a marker was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The marker.
    pub marker: String,
    /// The file that holds it, or that is named by it.
    pub file: String,
}

/// What a search looked at and found.
#[derive(Debug, Default)]
pub struct Found {
    /// Files read.
    pub files: usize,
    /// Bytes read.
    pub bytes: usize,
    /// Every marker with every file that holds it.
    pub hits: Vec<Hit>,
}

/// Searches contents and names of all files below `folder` for `markers`: as UTF-8, UTF-16 in both orders, hex in both
/// cases, and base64 at any alignment in both alphabets.
///
/// # Errors
/// A file cannot be read; one that disappears meanwhile is passed over.
pub fn search(folder: &Path, markers: &[String]) -> Result<Found> {
    let patterns: Vec<(String, Vec<Vec<u8>>)> =
        markers.iter().map(|marker| (marker.clone(), encodings(marker))).collect();
    let mut found = Found::default();
    walk(folder, &patterns, &mut found)
        .with_context(|| format!("searching {}", folder.display()))?;
    Ok(found)
}

fn walk(folder: &Path, patterns: &[(String, Vec<Vec<u8>>)], found: &mut Found) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&path, patterns, found)?;
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut content = name.into_bytes();
        content.push(0);
        if kind.is_file() {
            match fs::File::open(&path) {
                Ok(mut file) => found.bytes += file.read_to_end(&mut content)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            }
            found.files += 1;
        }
        for (marker, encodings) in patterns {
            if encodings.iter().any(|pattern| memchr::memmem::find(&content, pattern).is_some()) {
                found.hits.push(Hit { marker: marker.clone(), file: path.display().to_string() });
            }
        }
    }
    Ok(())
}

/// The marker as it might stand in a file.
fn encodings(marker: &str) -> Vec<Vec<u8>> {
    let hex = hex::encode(marker);
    let mut all = vec![
        marker.as_bytes().to_vec(),
        marker.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        marker.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
    ];
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        all.extend((0..3).map(|before| inside_base64(&engine, marker, before)));
    }
    all
}

/// The letters of base64 that a marker alone decides, where `before` bytes (modulo 3) stand before it.
fn inside_base64(engine: &GeneralPurpose, marker: &str, before: usize) -> Vec<u8> {
    let padded = [vec![0; before], marker.as_bytes().to_vec()].concat();
    let letters = engine.encode(&padded).into_bytes();
    // Letters of six bits: those that hold a bit of what stands before or behind are left out.
    let (first, end) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
    letters[first..end].to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn markers_are_found_in_contents_and_names_in_every_encoding() {
        let marker = "heron-7f3a";
        let around = |before: usize| format!("{}{marker}>>>???", "x".repeat(before));
        let standard = |before| STANDARD_NO_PAD.encode(around(before)).into_bytes();
        let url_safe = |before| URL_SAFE_NO_PAD.encode(around(before)).into_bytes();
        let cases: [(&str, Vec<u8>); 12] = [
            ("plain", b"xx heron-7f3a yy".to_vec()),
            ("wide", marker.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            ("wide, big endian", marker.encode_utf16().flat_map(u16::to_be_bytes).collect()),
            ("base64", standard(0)),
            ("base64 of one later", standard(1)),
            ("base64 of two later", standard(2)),
            ("base64 for addresses", url_safe(0)),
            ("base64 for addresses of one later", url_safe(1)),
            ("base64 for addresses of two later", url_safe(2)),
            ("hex", hex::encode(marker).into_bytes()),
            ("upper", hex::encode_upper(marker).into_bytes()),
            ("name-heron-7f3a", b"nothing".to_vec()),
        ];
        for (name, content) in cases {
            let folder = tempfile::tempdir().unwrap();
            let inner = folder.path().join("inner");
            fs::create_dir(&inner).unwrap();
            fs::write(inner.join(name), content).unwrap();
            let found = search(folder.path(), &[marker.to_owned(), "absent-word".into()]).unwrap();
            assert_eq!(found.hits.len(), 1, "{name}: {found:?}");
            assert_eq!(found.hits[0].marker, marker);
        }
    }
}
