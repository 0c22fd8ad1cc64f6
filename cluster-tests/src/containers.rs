//! PKCS#12 files that no program would make: written byte by byte, with a MAC that holds where it matters.

use sha2::{Digest as _, Sha256};

/// The password under which the MAC of [`pfx`] holds.
pub const PASSWORD: &str = "p";

/// One DER value.
#[must_use]
pub fn tlv(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let length = content.len().to_be_bytes();
    let zeros = length.iter().take_while(|byte| **byte == 0).count().min(length.len() - 1);
    let digits = &length[zeros..];
    let mut bytes = vec![tag];
    if content.len() >= 0x80 {
        bytes.push(0x80 | u8::try_from(digits.len()).unwrap_or(0));
    }
    bytes.extend(digits);
    bytes.extend(content);
    bytes
}

/// A number that is not negative.
#[must_use]
pub fn number(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count().min(7);
    let digits = &bytes[zeros..];
    let sign: &[u8] = if digits[0] & 0x80 == 0 { &[] } else { &[0] };
    tlv(0x02, &[sign, digits])
}

const DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const X509: &[u8] = &[0x06, 10, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 22, 1];
const SHA256: &[u8] = &[0x30, 13, 0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0];
const PBE_3DES: &[u8] = &[0x06, 10, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 1, 3];

/// A SafeBag of this kind: 2 a shrouded key, 3 a certificate, 6 more bags.
#[must_use]
pub fn bag(kind: u8, value: &[u8]) -> Vec<u8> {
    let oid = [0x06, 11, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1, kind];
    tlv(0x30, &[&oid, &tlv(0xa0, &[value])])
}

/// A certificate in its bag.
#[must_use]
pub fn certificate_bag(der: &[u8]) -> Vec<u8> {
    bag(3, &tlv(0x30, &[X509, &tlv(0xa0, &[&tlv(0x04, &[der])])]))
}

/// A shrouded key whose opening would take this many rounds.
#[must_use]
pub fn key_bag(rounds: u64) -> Vec<u8> {
    let parameters = tlv(0x30, &[&tlv(0x04, &[b"saltsalt"]), &number(rounds)]);
    let algorithm = tlv(0x30, &[PBE_3DES, &parameters]);
    bag(2, &tlv(0x30, &[&algorithm, &tlv(0x04, &[&[0; 64]])]))
}

/// `bag` in 1,000 bags of bags and so on.
#[must_use]
pub fn nested(depth: usize, innermost: Vec<u8>) -> Vec<u8> {
    (0..depth).fold(innermost, |bags, _| bag(6, &tlv(0x30, &[&bags])))
}

/// A file with one part in the clear and a MAC that holds under [`PASSWORD`]; `rounds` stand in it in place of the
/// true 1.
#[must_use]
pub fn pfx(bags: &[Vec<u8>], rounds: u64) -> Vec<u8> {
    let bags = tlv(0x30, &[&bags.concat()]);
    let part = tlv(0x30, &[DATA, &tlv(0xa0, &[&tlv(0x04, &[&bags])])]);
    let safe = tlv(0x30, &[&part]);
    let digest = tlv(0x30, &[SHA256, &tlv(0x04, &[&mac(&safe)])]);
    let mac = tlv(0x30, &[&digest, &tlv(0x04, &[b"saltsalt"]), &number(rounds)]);
    let safe = tlv(0x30, &[DATA, &tlv(0xa0, &[&tlv(0x04, &[&safe])])]);
    tlv(0x30, &[&number(3), &safe, &mac])
}

/// HMAC-SHA-256 under the key that RFC 7292, appendix B, derives in one round.
fn mac(content: &[u8]) -> [u8; 32] {
    let wide: Vec<u8> = PASSWORD.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect();
    let filled = |bytes: &[u8]| bytes.iter().copied().cycle().take(64).collect::<Vec<u8>>();
    let key = Sha256::digest([[3; 64].as_slice(), &filled(b"saltsalt"), &filled(&wide)].concat());
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key.iter()).for_each(|(pad, key)| *pad ^= key);
        block
    };
    let inner = Sha256::digest([pad(0x36).as_slice(), content].concat());
    Sha256::digest([pad(0x5c).as_slice(), &inner].concat()).into()
}

/// The outer length replaced by an indefinite one, which is BER and not DER.
#[must_use]
pub fn indefinite(der: &[u8]) -> Vec<u8> {
    let head = match der.get(1) {
        Some(long @ 0x80..) => 2 + usize::from(long & 0x7f),
        Some(_) | None => 2,
    };
    [&[0x30, 0x80], der.get(head..).unwrap_or_default(), &[0, 0]].concat()
}
