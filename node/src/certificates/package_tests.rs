//! What is in a package, for whose eyes, and that no name becomes a path.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
};

use rcgen::KeyPair;

use super::{
    tests::{authority, request},
    *,
};
use crate::names::Thumbprint;

/// The entries of a package: mode and bytes by name.
fn entries(der: &[u8], name: &str, key: HolderKey<'_>) -> BTreeMap<String, (u32, Vec<u8>)> {
    let addresses = ["n1.example:7443", "[::1]:7443"].map(str::to_owned);
    let bytes = package(&PackageContents {
        name,
        der,
        key,
        ca_pem: "-----BEGIN CERTIFICATE-----\n",
        addresses: &addresses,
        node_thumbprints: &[Thumbprint::of(b"node")],
        cluster_id: "0199-cluster",
    })
    .unwrap();
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    (0..archive.len())
        .map(|place| {
            let mut entry = archive.by_index(place).unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.name().to_owned(), (entry.unix_mode().unwrap(), content))
        })
        .collect()
}

fn package_of(issued: &Issued, name: &str, password: &Secret) -> BTreeMap<String, (u32, Vec<u8>)> {
    let protection = Protection::Modern;
    entries(&issued.der, name, HolderKey::Made { pem: &issued.key_pem, password, protection })
}

#[test]
fn a_package_holds_all_that_its_holder_needs_for_their_eyes_only() {
    let ca = authority();
    let client = issue_client(&request("alice"), &ca.der, ca.key_pem.expose()).unwrap();
    let secret = password().unwrap();
    let entries = package_of(&client, "alice", &secret);
    let names: Vec<_> = entries.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["README.md", "alice.crt", "alice.key", "alice.pfx", "ca.crt", "context.toml"]
    );
    assert!(entries.values().all(|(mode, _)| mode & 0o777 == 0o600), "{entries:?}");
    let text = |name: &str| String::from_utf8(entries[name].1.clone()).unwrap();

    let uploaded = from_upload(text("alice.crt").as_bytes(), None).unwrap();
    assert_eq!(uploaded.single().unwrap(), client.der);
    assert_eq!(text("alice.key"), client.key_pem.expose());
    let context: toml::Table = toml::from_str(&text("context.toml")).unwrap();
    assert_eq!(context["name"].as_str(), Some("alice"));
    assert_eq!(context["certificate"].as_str(), Some("alice.crt"));
    assert_eq!(context["key"].as_str(), Some("alice.key"));
    assert_eq!(context["ca"].as_str(), Some("ca.crt"));
    assert_eq!(context["cluster_id"].as_str(), Some("0199-cluster"));
    assert_eq!(
        context["thumbprint"].as_str(),
        Some(Thumbprint::of(&client.der).to_string().as_str())
    );
    assert_eq!(context["addresses"].as_array().unwrap().len(), 2);
    assert_eq!(context.len(), 7, "nothing else stands in it");
    let readme = text("README.md");
    for part in ["## Browser", "## curl", "## Python", "## Rust", "n1.example:7443", "alice.pfx"] {
        assert!(readme.contains(part), "{part}");
    }
    assert!(!readme.contains(secret.expose()), "the password travels apart");
}

#[test]
fn the_pfx_opens_with_its_password_alone_and_holds_leaf_and_key() {
    use p12_keystore::{KeyStore, Pkcs12ImportPolicy::Strict};
    let ca = authority();
    let client = issue_client(&request("alice"), &ca.der, ca.key_pem.expose()).unwrap();
    let secret = password().unwrap();
    let pfx = package_of(&client, "alice", &secret).remove("alice.pfx").unwrap().1;
    assert!(KeyStore::from_pkcs12(&pfx, "wrong", Strict).is_err());
    assert!(KeyStore::from_pkcs12(&pfx, "", Strict).is_err());
    let store = KeyStore::from_pkcs12(&pfx, secret.expose(), Strict).unwrap();
    let (alias, chain) = store.private_key_chain().unwrap();
    assert_eq!(alias, "alice");
    assert_eq!(chain.certs().len(), 1, "no chain means anything here");
    assert_eq!(chain.certs()[0].as_der(), client.der);
    let key = KeyPair::from_pem(client.key_pem.expose()).unwrap();
    assert_eq!(chain.key().as_der(), key.serialized_der());
    let plain = key.serialized_der();
    assert!(!pfx.windows(plain.len()).any(|window| window == plain), "the key is encrypted");
}

#[test]
fn no_name_becomes_a_path_a_device_or_another_file_of_the_package() {
    let long = "x".repeat(500);
    let table = [
        ("alice", "alice"),
        ("Alice Crow (laptop)", "Alice-Crow-laptop"),
        ("../../etc/passwd", "etc-passwd"),
        ("..\\..\\windows", "windows"),
        ("/root/.ssh/id", "root-ssh-id"),
        ("C:\\x", "C-x"),
        ("..", "certificate"),
        (".", "certificate"),
        ("", "certificate"),
        ("日本語", "certificate"),
        ("jürgen", "j-rgen"),
        ("ca", "ca-client"),
        ("CA", "ca-client"),
        ("con", "client-con"),
        ("COM1.x", "client-COM1.x"),
        ("a\0b\nc", "a-b-c"),
        ("-rf", "rf"),
        (long.as_str(), &long[..64]),
    ];
    for (name, stem) in table {
        assert_eq!(file_stem(name), stem, "{name:?}");
    }
    let ca = authority();
    let entries = package_of(&ca, "../../ca", &Secret::new("p".to_owned()));
    assert_eq!(entries.len(), 6);
    for name in entries.keys() {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        assert!(name.chars().all(plain) && !name.contains(".."), "{name}");
    }
}

#[test]
fn an_address_that_a_shell_would_read_is_refused() {
    let ca = authority();
    for address in
        ["n1.example", "n1:x", ":7443", "a b:1", "$(id):1", "a`b:1", "-o:1", "n1:70000", "a\nb:1"]
    {
        let addresses = [address.to_owned()];
        let refused = package(&PackageContents {
            name: "alice",
            der: &ca.der,
            key: HolderKey::WithHolder,
            ca_pem: "",
            addresses: &addresses,
            node_thumbprints: &[],
            cluster_id: "",
        });
        assert!(matches!(refused, Err(Error::Address(_))), "{address}");
    }
}

#[test]
fn passwords_are_random_and_readable() {
    let passwords: BTreeSet<_> =
        (0..100).map(|_| password().unwrap().expose().to_owned()).collect();
    assert_eq!(passwords.len(), 100);
    for password in passwords {
        let groups: Vec<_> = password.split('-').collect();
        assert_eq!(groups.len(), 6, "{password}");
        assert!(groups.iter().all(|group| group.len() == 4), "{password}");
        assert!(!password.contains(['l', 'o', '0', '1']), "{password}");
    }
    assert_eq!(format!("{:?}", password().unwrap()), "Secret");
}

#[test]
fn a_package_for_a_request_holds_no_key_and_says_where_it_belongs() {
    let ca = authority();
    let client = issue_client(&request("alice"), &ca.der, ca.key_pem.expose()).unwrap();
    let entries = entries(&client.der, "alice", HolderKey::WithHolder);
    let names: Vec<_> = entries.keys().map(String::as_str).collect();
    assert_eq!(names, ["README.md", "alice.crt", "ca.crt", "context.toml"]);
    for (name, (mode, content)) in &entries {
        assert_eq!(mode & 0o777, 0o600, "{name}");
        let text = String::from_utf8(content.clone()).unwrap();
        assert!(!text.contains("PRIVATE KEY"), "{name}");
    }
    let context: toml::Table =
        toml::from_str(std::str::from_utf8(&entries["context.toml"].1).unwrap()).unwrap();
    assert_eq!(context["key"].as_str(), Some("alice.key"));
    let readme = String::from_utf8(entries["README.md"].1.clone()).unwrap();
    for part in ["copy it here as `alice.key`", "openssl pkcs12 -export", "## curl", "## Rust"] {
        assert!(readme.contains(part), "{part}");
    }
    assert!(!readme.contains('{') || !readme.contains("{stem}") && !readme.contains("{address}"));
}

#[test]
fn an_old_windows_gets_3des_and_a_warning() {
    let ca = authority();
    let client = issue_client(&request("alice"), &ca.der, ca.key_pem.expose()).unwrap();
    let password = Secret::new("p".to_owned());
    let made = |protection| {
        entries(
            &client.der,
            "alice",
            HolderKey::Made { pem: &client.key_pem, password: &password, protection },
        )
    };
    // pbeWithSHAAnd3-KeyTripleDES-CBC, PBES2.
    let old = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01, 0x03];
    let new = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
    let holds = |pfx: &[u8], oid: &[u8]| pfx.windows(oid.len()).filter(|it| *it == oid).count();
    for (protection, is, is_not) in [
        (Protection::Compatible, old.as_slice(), new.as_slice()),
        (Protection::Modern, new.as_slice(), old.as_slice()),
    ] {
        let entries = made(protection);
        let pfx = &entries["alice.pfx"].1;
        assert_eq!((holds(pfx, is), holds(pfx, is_not)), (2, 0), "certificate and key");
        let upload = from_upload(pfx, Some("p")).unwrap();
        assert!(upload.private_key_dropped);
        assert_eq!(upload.certificates, [client.der.as_slice()]);
        let readme = String::from_utf8(entries["README.md"].1.clone()).unwrap();
        assert_eq!(readme.contains("weak"), protection == Protection::Compatible);
    }
}

#[test]
fn a_collection_is_public_certificates_and_nothing_else() {
    let ca = authority();
    let key = ca.key_pem.expose();
    let names = ["127.0.0.1".to_owned()];
    let nodes: Vec<Issued> = (0..3)
        .map(|n| issue_node(&request(&format!("n{n}")), &names, &ca.der, key).unwrap())
        .collect();
    let ders: Vec<&[u8]> = nodes.iter().map(|node| node.der.as_slice()).collect();
    for password in ["", "secret"] {
        let entries = ["n1", "n2", "n3"].into_iter().zip(ders.iter().copied());
        let pfx = collection(entries, &Secret::new(password.to_owned())).unwrap();
        let upload = from_upload(&pfx, Some(password)).unwrap();
        assert_eq!(upload.certificates, ders);
        assert!(!upload.private_key_dropped && upload.authorities_skipped == 0);
    }
}

#[test]
fn a_node_certificate_comes_with_its_key_from_pem_or_pkcs12() {
    let ca = authority();
    let names = ["n1.example".to_owned(), "127.0.0.1".to_owned()];
    let node = issue_node(&request("n1"), &names, &ca.der, ca.key_pem.expose()).unwrap();
    let key = KeyPair::from_pem(node.key_pem.expose()).unwrap();
    let both = format!("{}{}", node.key_pem.expose(), certificate_pem(&node.der));
    let found = server_identity(both.as_bytes(), "").unwrap();
    assert_eq!(
        (&found.chain, found.key.as_slice()),
        (&vec![node.der.clone()], key.serialized_der())
    );
    let secret = password().unwrap();
    let pfx = package_of(&node, "n1", &secret).remove("n1.pfx").unwrap().1;
    let found = server_identity(&pfx, secret.expose()).unwrap();
    assert_eq!(
        (&found.chain, found.key.as_slice()),
        (&vec![node.der.clone()], key.serialized_der())
    );
    assert!(server_identity(&pfx, "another").is_err());
    let certificate = certificate_pem(&node.der);
    let twice = format!("{both}{}", node.key_pem.expose());
    for wrong in [certificate.as_str(), node.key_pem.expose(), &twice, "", "nothing"] {
        assert!(server_identity(wrong.as_bytes(), "").is_err(), "{wrong}");
    }
    for (host, covered) in [
        ("n1.example", true),
        ("N1.example", true),
        ("127.0.0.1", true),
        ("n2.example", false),
        ("127.0.0.2", false),
        ("::1", false),
        ("", false),
    ] {
        assert_eq!(covers_host(&node.der, host), covered, "{host}");
    }
    assert!(!covers_host(b"none", "n1.example"));
}
