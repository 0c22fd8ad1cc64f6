//! Planted words, and the search for them in every file of a folder: nothing a client stored may be readable on disk.

use std::{fs, io::Read as _, path::Path};

use anyhow::{Context as _, Result};

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

/// Searches contents and names of all files below `folder` for `markers`, as UTF-8, UTF-16 and hex.
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

/// The marker as it might stand in a file: plain, as UTF-16, and as hex in either case.
fn encodings(marker: &str) -> Vec<Vec<u8>> {
    let hex = hex::encode(marker);
    vec![
        marker.as_bytes().to_vec(),
        marker.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn markers_are_found_in_contents_and_names_in_every_encoding() {
        let marker = "heron-7f3a";
        let cases: [(&str, Vec<u8>); 5] = [
            ("plain", b"xx heron-7f3a yy".to_vec()),
            ("wide", marker.encode_utf16().flat_map(u16::to_le_bytes).collect()),
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
