//! Project Wycheproof's vectors on the primitives that stand here: each says what must come out, or must be refused.
//!
//! How many there are is asserted: a set that was not read is no set that passed.
#![allow(clippy::unwrap_used)]

use hmac::{Hmac, KeyInit as _, Mac as _};
use pkcs5::pbes2;
use wycheproof::{TestResult, aead, hkdf as hkdf_vectors, mac, pbes2 as pbes2_vectors, xdh};

use super::{
    SealingKey, SealingPublicKey, SecretKey,
    pkcs12::{Password, Scheme},
    seal,
};

/// What was tried: vectors whose answer must come out, and vectors that must be refused.
#[derive(Debug, Default, PartialEq)]
struct Tried {
    valid: usize,
    invalid: usize,
}

impl Tried {
    fn count(&mut self, result: TestResult) {
        match result {
            TestResult::Valid | TestResult::Acceptable => self.valid += 1,
            TestResult::Invalid => self.invalid += 1,
        }
    }
}

#[test]
fn xchacha20_poly1305_agrees_with_wycheproof() {
    let set = aead::TestSet::load(aead::TestName::XChaCha20Poly1305).unwrap();
    let mut tried = Tried::default();
    let mut other_nonces = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let key: &[u8; 32] = test.key.as_slice().try_into().unwrap();
        // This program has no way to say a nonce of another length.
        let Ok(nonce) = <[u8; 24]>::try_from(test.nonce.as_slice()) else {
            assert_eq!(test.result, TestResult::Invalid, "{}", test.tc_id);
            other_nonces += 1;
            continue;
        };
        let tag: [u8; 16] = test.tag.as_slice().try_into().unwrap();
        let mut opened = test.ct.to_vec();
        let decrypted = seal::decrypt(key, nonce, &test.aad, &mut opened, tag);
        let mut sealed = test.pt.to_vec();
        let made = seal::encrypt(key, nonce, &test.aad, &mut sealed).unwrap();
        match test.result {
            TestResult::Valid | TestResult::Acceptable => {
                decrypted.unwrap();
                assert_eq!(opened, test.pt.as_slice(), "{}", test.tc_id);
                assert_eq!((sealed.as_slice(), made), (test.ct.as_slice(), tag), "{}", test.tc_id);
            }
            TestResult::Invalid => {
                assert!(decrypted.is_err(), "{}: {}", test.tc_id, test.comment);
                assert_eq!(opened, test.ct.as_slice(), "{}: given out unproven", test.tc_id);
                assert_ne!((sealed.as_slice(), made), (test.ct.as_slice(), tag), "{}", test.tc_id);
            }
        }
        tried.count(test.result);
    }
    assert_eq!((tried, other_nonces), (Tried { valid: 246, invalid: 60 }, 9));
}

#[test]
fn hkdf_sha256_agrees_with_wycheproof() {
    let set = hkdf_vectors::TestSet::load(hkdf_vectors::TestName::HkdfSha256).unwrap();
    let mut tried = Tried::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut derived = vec![0; test.size];
        let expanded = hkdf::Hkdf::<sha2::Sha256>::new(Some(&test.salt), &test.ikm)
            .expand(&test.info, &mut derived);
        match test.result {
            TestResult::Valid | TestResult::Acceptable => {
                expanded.unwrap();
                assert_eq!(derived, test.okm.as_slice(), "{}", test.tc_id);
            }
            TestResult::Invalid => assert!(expanded.is_err(), "{}", test.tc_id),
        }
        tried.count(test.result);
    }
    assert_eq!(tried, Tried { valid: 83, invalid: 3 });
}

fn hmac<D>(key: &[u8], message: &[u8]) -> Vec<u8>
where
    D: hmac::EagerHash,
{
    let mut hmac = Hmac::<D>::new_from_slice(key).unwrap();
    hmac.update(message);
    hmac.finalize().into_bytes().to_vec()
}

#[test]
fn hmac_agrees_with_wycheproof() {
    type Function = fn(&[u8], &[u8]) -> Vec<u8>;
    let mut tried = Tried::default();
    for (name, function) in [
        (mac::TestName::HmacSha1, hmac::<sha1::Sha1> as Function),
        (mac::TestName::HmacSha224, hmac::<sha2::Sha224>),
        (mac::TestName::HmacSha256, hmac::<sha2::Sha256>),
        (mac::TestName::HmacSha384, hmac::<sha2::Sha384>),
        (mac::TestName::HmacSha512, hmac::<sha2::Sha512>),
    ] {
        let set = mac::TestSet::load(name).unwrap();
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            // Some vectors have a tag that was cut.
            let right = function(&test.key, &test.msg).starts_with(&test.tag);
            assert_eq!(right, !test.result.must_fail(), "{name:?} {}", test.tc_id);
            tried.count(test.result);
        }
    }
    assert_eq!(tried, Tried { valid: 330, invalid: 534 });
}

#[test]
fn x25519_agrees_with_wycheproof_and_nothing_is_sealed_to_points_of_low_order() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let own = SealingKey::from_secret(SecretKey::take(&mut [7; 32])).unwrap();
    let mut tried = Tried::default();
    let mut low_order = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let private: [u8; 32] = test.private_key.as_slice().try_into().unwrap();
        let public: [u8; 32] = test.public_key.as_slice().try_into().unwrap();
        let shared = x25519_dalek::x25519(private, public);
        assert_eq!(shared, test.shared_secret.as_slice(), "{}", test.tc_id);
        tried.count(test.result);
        let is_low = shared == [0; 32];
        low_order += usize::from(is_low);
        let sealed = SealingPublicKey::from_bytes(&public).unwrap().seal("test", b"", b"content");
        assert_eq!(sealed.is_err(), is_low, "{}: sealing", test.tc_id);
        // What comes with such a point as its encapsulated key opens nowhere.
        let forged = [&[1], public.as_slice(), &[0; 23]].concat();
        assert!(own.open("test", b"", &forged).is_err(), "{}: opening", test.tc_id);
    }
    assert_eq!((tried, low_order), (Tried { valid: 518, invalid: 0 }, 31));
}

#[test]
fn what_passwords_encrypt_agrees_with_wycheproof() {
    use pbes2::{EncryptionScheme as Aes, Pbkdf2Prf as Prf};
    let mut tried = Tried::default();
    let mut others = 0;
    for name in pbes2_vectors::TestName::all() {
        let set = pbes2_vectors::TestSet::load(name).unwrap();
        let text = format!("{name:?}");
        let prf = [
            ("Sha1", Prf::HmacWithSha1),
            ("Sha224", Prf::HmacWithSha224),
            ("Sha256", Prf::HmacWithSha256),
            ("Sha384", Prf::HmacWithSha384),
            ("Sha512", Prf::HmacWithSha512),
        ];
        let prf =
            prf.into_iter().find(|(hash, _)| text.contains(&format!("Hmac{hash}And"))).unwrap().1;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            // Passwords come as text; the vectors with other bytes have no way in.
            let Ok(password) = std::str::from_utf8(&test.password) else {
                others += 1;
                continue;
            };
            let iv = test.iv.as_slice().try_into().unwrap();
            let encryption = match &text[text.len() - 3..] {
                "128" => Aes::Aes128Cbc { iv },
                "192" => Aes::Aes192Cbc { iv },
                _ => Aes::Aes256Cbc { iv },
            };
            let rounds = u32::try_from(test.iteration_count).unwrap();
            let mut kdf = pbes2::Pbkdf2Params::hmac_sha256(rounds, &test.salt).unwrap();
            kdf.prf = prf;
            let parameters = pbes2::Parameters { kdf: kdf.into(), encryption };
            let opened =
                Scheme::Modern(Box::new(parameters)).decrypt(&Password::new(password), &test.ct);
            assert_eq!(
                opened.is_some_and(|opened| *opened == test.msg.as_slice()),
                !test.result.must_fail(),
                "{name:?} {}",
                test.tc_id
            );
            tried.count(test.result);
        }
    }
    assert_eq!((tried, others), (Tried { valid: 945, invalid: 0 }, 315));
}
