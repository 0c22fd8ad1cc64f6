//! The one exact encoding: a walk over a DER value that fails wherever another encoding of it would exist.
//!
//! A thumbprint is taken over bytes, so two encodings of one certificate would be two identities. X.690 section 10
//! (and 8, 11) says what DER forbids of BER; what is checked here: definite and shortest lengths, shortest tags,
//! shortest integers, booleans of 00 or FF, bit strings with zero padding, strings in one piece, no trailing bytes.
//! The order within a SET OF is left alone.

use super::Refused;

/// Deepest nesting of a certificate.
const DEPTH_MAX: usize = 24;

/// Checks that `bytes` are one DER value and nothing behind it.
///
/// # Errors
/// [`Refused::TrailingBytes`], [`Refused::Malformed`] for what is cut off, [`Refused::NotCanonical`] for the rest.
pub(super) fn check(bytes: &[u8]) -> Result<(), Refused> {
    let (_, rest) = value(bytes, 0)?;
    if rest.is_empty() { Ok(()) } else { Err(Refused::TrailingBytes(rest.len())) }
}

/// Walks one value; answers its tag and what follows it.
fn value(bytes: &[u8], depth: usize) -> Result<(u8, &[u8]), Refused> {
    if depth > DEPTH_MAX {
        return Err(Refused::Malformed("it is nested too deep"));
    }
    let (tag, content, rest) = split_value(bytes)?;
    if tag & 0x20 != 0 {
        constructed(tag, content, depth)?;
    } else {
        primitive(tag, content)?;
    }
    Ok((tag, rest))
}

/// Tag and content of the value that `bytes` begin with, and what follows it. What the content holds is not looked at.
///
/// # Errors
/// As [`check`].
pub(super) fn split_value(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), Refused> {
    let (tag, bytes) = split(bytes)?;
    if tag & 0x1f == 0x1f {
        // X.509 and its kin have no tag above 30, so the long form is always a disguise.
        return Err(Refused::NotCanonical("a tag in long form"));
    }
    let (length, bytes) = length(bytes)?;
    let Some((content, rest)) = bytes.split_at_checked(length) else {
        return Err(Refused::Malformed("it is cut off"));
    };
    Ok((tag, content, rest))
}

fn split(bytes: &[u8]) -> Result<(u8, &[u8]), Refused> {
    let (first, rest) = bytes.split_first().ok_or(Refused::Malformed("it is cut off"))?;
    Ok((*first, rest))
}

fn length(bytes: &[u8]) -> Result<(usize, &[u8]), Refused> {
    let (first, mut rest) = split(bytes)?;
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    if first == 0x80 {
        return Err(Refused::NotCanonical("an indefinite length"));
    }
    let mut length = 0_usize;
    for place in 0..first & 0x7f {
        let (byte, behind) = split(rest)?;
        if place == 0 && byte == 0 || place >= 4 {
            return Err(Refused::NotCanonical("a length that is longer than need be"));
        }
        length = length << 8 | usize::from(byte);
        rest = behind;
    }
    if length < 0x80 {
        return Err(Refused::NotCanonical("a length that is longer than need be"));
    }
    Ok((length, rest))
}

fn constructed(tag: u8, mut content: &[u8], depth: usize) -> Result<(), Refused> {
    let universal = tag & 0xc0 == 0;
    if universal && tag != 0x30 && tag != 0x31 {
        return Err(Refused::NotCanonical("a string in pieces"));
    }
    while !content.is_empty() {
        (_, content) = value(content, depth + 1)?;
    }
    Ok(())
}

fn primitive(tag: u8, content: &[u8]) -> Result<(), Refused> {
    match (tag, content) {
        (0x01, [0x00 | 0xff]) => Ok(()),
        (0x01, _) => Err(Refused::NotCanonical("a boolean other than 00 and FF")),
        (0x02 | 0x0a, []) => Err(Refused::Malformed("a number without digits")),
        (0x02 | 0x0a, [0x00, 0x00..=0x7f, ..] | [0xff, 0x80..=0xff, ..]) => {
            Err(Refused::NotCanonical("a number that is longer than need be"))
        }
        (0x03, content) => bit_string(content),
        (0x05, [_, ..]) => Err(Refused::Malformed("a null with content")),
        (0x06, []) => Err(Refused::Malformed("an empty object identifier")),
        (0x30 | 0x31 | 0x10 | 0x11, _) => Err(Refused::NotCanonical("a primitive sequence")),
        _ => Ok(()),
    }
}

fn bit_string(content: &[u8]) -> Result<(), Refused> {
    let unused = match content {
        [] => return Err(Refused::Malformed("a bit string without content")),
        [unused, bits @ ..] if *unused > 7 || (*unused > 0 && bits.is_empty()) => {
            return Err(Refused::Malformed("a bit string with too many unused bits"));
        }
        [unused, ..] => *unused,
    };
    let padding = content.last().copied().unwrap_or_default() & ((1_u8 << unused) - 1);
    if unused > 0 && padding != 0 {
        return Err(Refused::NotCanonical("a bit string with set padding"));
    }
    Ok(())
}
