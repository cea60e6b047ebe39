use rcgen::PublicKeyData as _;
use x509_parser::extensions::GeneralName;

use super::*;
use crate::{Csr, CsrError, IssueError, Issued, PublicKey, RequestedName, TtlPolicy};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn root_from(organization: &str, lifetime: Duration) -> Issuer {
    let key = KeyPair::generate().unwrap().serialize_pem();
    Issuer::self_signed(organization, &key, now(), lifetime, Serial([7; 16])).unwrap()
}

fn root() -> Issuer {
    root_from("mesh.example", 3650 * DAY)
}

fn caller() -> mizzen_identity::SpiffeId {
    "spiffe://mesh.example/ns/shop/sa/cart".parse().unwrap()
}

/// A request of `key` for `names`.
fn csr_of(key: &KeyPair, names: Vec<rcgen::SanType>) -> rcgen::CertificateSigningRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "I am root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.subject_alt_names = names;
    params.serialize_request(key).unwrap()
}

fn csr(names: Vec<rcgen::SanType>) -> Csr {
    Csr::parse(csr_of(&KeyPair::generate().unwrap(), names).der()).unwrap()
}

fn uri(text: &str) -> rcgen::SanType {
    rcgen::SanType::URI(text.try_into().unwrap())
}

fn issue(issuer: &Issuer, csr: &Csr, ttl: Option<Duration>) -> Result<Issued, IssueError> {
    issuer.issue(csr, &caller(), ttl, &TtlPolicy::default(), now(), Serial([9; 16]))
}

/// Rebuilds a root's CA certificate around another key, to make intermediates.
fn intermediate(root: &Issuer, name: &str) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = OffsetDateTime::from(now() - DAY);
    params.not_after = OffsetDateTime::from(now() + 30 * DAY);
    (
        pem::certificate(params.signed_by(&key, &root.signer).unwrap().der()),
        key,
    )
}

// E1
#[test]
fn a_workload_gets_its_proven_name_and_nothing_else() {
    let root = root();
    let key = KeyPair::generate().unwrap();
    let request = Csr::parse(csr_of(&key, vec![uri(&caller().to_string())]).pem().unwrap().as_bytes()).unwrap();
    let issued = issue(&root, &request, None).unwrap();

    let (_, leaf) = X509Certificate::from_der(&issued.leaf).unwrap();
    assert_eq!(leaf.subject().iter().count(), 0, "the subject is empty");
    assert_eq!(leaf.issuer().to_string(), "O=mesh.example, CN=mesh.example mesh root");
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical, "RFC 5280 4.1.2.6: critical where the subject is empty");
    assert_eq!(
        san.value.general_names,
        [GeneralName::URI("spiffe://mesh.example/ns/shop/sa/cart")]
    );
    assert!(!leaf.is_ca(), "the request asked to be a CA");
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth && !usage.any);
    let key_usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(key_usage.digital_signature() && !key_usage.key_cert_sign());
    assert_eq!(leaf.public_key().subject_public_key.data.as_ref(), key.der_bytes());
    assert_eq!(leaf.raw_serial(), [9; 16]);
    assert_eq!(leaf.validity().not_before.timestamp(), 1_800_000_000 - 120);
    assert_eq!(leaf.validity().not_after.timestamp(), 1_800_000_000 + 86_400);
    let (_, ca) = X509Certificate::from_der(&root.roots()[0]).unwrap();
    leaf.verify_signature(Some(ca.public_key())).unwrap();
    assert!(issued.chain.is_empty());
}

// E1, E7
#[test]
fn a_request_for_anothers_name_is_refused() {
    let root = root();
    let foreign = [
        uri("spiffe://mesh.example/ns/shop/sa/admin"),
        uri("spiffe://other.example/ns/shop/sa/cart"),
        uri("spiffe://mesh.example/ns/shop/sa/cart/"),
        rcgen::SanType::DnsName("istiod-basic.mesh.svc".try_into().unwrap()),
        rcgen::SanType::IpAddress([10, 0, 0, 1].into()),
        rcgen::SanType::Rfc822Name("a@b.example".try_into().unwrap()),
    ];
    for name in foreign {
        let names = vec![uri(&caller().to_string()), name];
        assert!(matches!(
            issue(&root, &csr(names), None),
            Err(IssueError::ForeignName { .. })
        ));
    }
    let error = issue(&root, &csr(vec![uri("spiffe://td/ns/a/sa/b")]), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the signing request asks for the URI \"spiffe://td/ns/a/sa/b\", but its sender is \
         spiffe://mesh.example/ns/shop/sa/cart: ask for that or for no name at all"
    );
    assert!(issue(&root, &csr(vec![]), None).is_ok());
}

// E1
#[test]
fn broken_requests_have_their_error() {
    let good = csr_of(&KeyPair::generate().unwrap(), vec![]).der().to_vec();
    let error = |bytes: &[u8]| Csr::parse(bytes).err().unwrap();
    assert_eq!(error(b""), CsrError::Malformed);
    assert_eq!(error(b"-----BEGIN CERTIFICATE REQUEST-----\nx\n"), CsrError::Malformed);
    assert_eq!(error(&good[..good.len() - 1]), CsrError::Malformed);
    assert_eq!(error(&[good.clone(), vec![0]].concat()), CsrError::TrailingBytes);
    assert_eq!(error(&vec![0x30; 20_000]), CsrError::TooLong { length: 20_000 });
    // Another key's signature under this key.
    let other = csr_of(&KeyPair::generate().unwrap(), vec![]).der().to_vec();
    let (spki, foreign) = (spki_of(&good), spki_of(&other));
    let at = good.windows(spki.len()).position(|window| window == spki).unwrap();
    let mut forged = good;
    forged[at..at + spki.len()].copy_from_slice(&foreign);
    assert_eq!(error(&forged), CsrError::Signature);
}

fn spki_of(csr: &[u8]) -> Vec<u8> {
    let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(csr).unwrap();
    request.certification_request_info.subject_pki.raw.to_vec()
}

// E1
#[test]
fn keys_of_every_sound_kind_are_certified() {
    let root = root();
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let request = Csr::parse(csr_of(&key, vec![]).der()).unwrap();
        assert!(issue(&root, &request, None).is_ok(), "{algorithm:?}");
    }
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let issued = issue(&root, &Csr::parse(csr_of(&rsa, vec![]).der()).unwrap(), None).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.leaf).unwrap();
    assert!(leaf.key_usage().unwrap().unwrap().value.key_encipherment());
}

// E1, E2
#[test]
fn life_follows_request_policy_and_issuer() {
    let root = root();
    let life = |ttl| {
        let validity = issue(&root, &csr(vec![]), ttl).unwrap().validity;
        validity.not_after.duration_since(now()).unwrap()
    };
    assert_eq!(life(None), DAY);
    assert_eq!(life(Some(Duration::ZERO)), DAY);
    assert_eq!(life(Some(Duration::from_secs(5))), Duration::from_secs(5));
    assert!(matches!(
        issue(&root, &csr(vec![]), Some(91 * DAY)),
        Err(IssueError::TtlTooLong { .. })
    ));

    let short = root_from("td", Duration::from_secs(60));
    let validity = issue(&short, &csr(vec![]), None).unwrap().validity;
    assert_eq!(validity.not_after, short.validity().not_after);

    // Half of a certificate of seconds is in the future.
    let brief = issue(&root, &csr(vec![]), Some(Duration::from_secs(10)))
        .unwrap()
        .validity;
    assert!(brief.after_percent(50) > now() + Duration::from_secs(3));
}

// E2
#[test]
fn an_issuer_signs_only_while_it_counts() {
    let root = root_from("td", DAY);
    let at = |when| {
        root.issue(
            &csr(vec![]),
            &caller(),
            None,
            &TtlPolicy::default(),
            when,
            Serial([1; 16]),
        )
    };
    assert!(matches!(at(now() + 2 * DAY), Err(IssueError::IssuerExpired)));
    assert!(matches!(at(now() - DAY), Err(IssueError::IssuerNotYetValid)));
}

// B7
#[test]
fn servers_get_dns_names_and_addresses() {
    let root = root();
    let key = KeyPair::generate().unwrap();
    let spki = PublicKey::from_spki_der(&key.subject_public_key_info()).unwrap();
    let names = ["istiod-basic.mesh.svc".to_owned(), "127.0.0.1".to_owned()];
    let issued = root.issue_server(&spki, &names, DAY, now(), Serial([3; 16])).unwrap();
    let (_, leaf) = X509Certificate::from_der(&issued.leaf).unwrap();
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(
        san.value.general_names,
        [
            GeneralName::DNSName("istiod-basic.mesh.svc"),
            GeneralName::IPAddress(&[127, 0, 0, 1])
        ]
    );
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth);
    assert!(matches!(
        root.issue_server(&spki, &[], DAY, now(), Serial([3; 16])),
        Err(IssueError::NoServerName)
    ));
}

// E2
#[test]
fn a_plugged_in_intermediate_leads_to_its_root() {
    let root = root();
    let (upper, upper_key) = intermediate(&root, "upper");
    let upper_issuer = Issuer::from_pem(CaPem {
        ca_cert: upper.clone(),
        ca_key: upper_key.serialize_pem(),
        cert_chain: String::new(),
        root_cert: root.root_pem(),
    })
    .unwrap();
    let (lower, lower_key) = intermediate(&upper_issuer, "lower");
    let plugged = CaPem {
        ca_cert: lower.clone(),
        ca_key: lower_key.serialize_pem(),
        cert_chain: format!("{lower}{upper}{}", root.root_pem()),
        root_cert: root.root_pem(),
    };
    let issuer = Issuer::from_pem(plugged.clone()).unwrap();
    let issued = issue(&issuer, &csr(vec![]), None).unwrap();
    assert_eq!(issued.chain_pem()[1..], [lower, upper]);
    assert_eq!(issuer.root_pem(), root.root_pem());

    let foreign_root = CaPem {
        root_cert: root_from("other", DAY).root_pem(),
        ..plugged.clone()
    };
    assert!(matches!(Issuer::from_pem(foreign_root), Err(IssuerError::NotRooted)));
    let no_chain = CaPem {
        cert_chain: String::new(),
        ..plugged.clone()
    };
    assert!(matches!(Issuer::from_pem(no_chain), Err(IssuerError::NotRooted)));
    let foreign_key = CaPem {
        ca_key: KeyPair::generate().unwrap().serialize_pem(),
        ..plugged
    };
    assert!(matches!(Issuer::from_pem(foreign_key), Err(IssuerError::KeyMismatch)));
}

// E2
#[test]
fn a_broken_ca_says_which_part() {
    let good = root().to_pem().clone();
    let leaf_key = KeyPair::generate().unwrap();
    let issued = issue(&root(), &Csr::parse(csr_of(&leaf_key, vec![]).der()).unwrap(), None).unwrap();
    let error = |pem: CaPem| Issuer::from_pem(pem).err().unwrap();
    assert!(matches!(
        error(CaPem {
            ca_cert: "x".into(),
            ..good.clone()
        }),
        IssuerError::Empty { field: "ca-cert.pem" }
    ));
    assert!(matches!(
        error(CaPem {
            ca_key: "x".into(),
            ..good.clone()
        }),
        IssuerError::Key(_)
    ));
    let not_ca = CaPem {
        ca_cert: issued.chain_pem()[0].clone(),
        ca_key: leaf_key.serialize_pem(),
        ..good.clone()
    };
    assert!(matches!(error(not_ca), IssuerError::NotCa));
    let same = Issuer::from_pem(CaPem {
        root_cert: String::new(),
        ..good.clone()
    })
    .unwrap();
    assert_eq!(same.root_pem(), good.root_cert);
}

#[test]
fn requested_names_read_well() {
    assert_eq!(
        RequestedName::Ip([1, 2, 3, 4].into()).to_string(),
        "the address 1.2.3.4"
    );
    assert_eq!(RequestedName::Dns("a.b".into()).to_string(), "the DNS name \"a.b\"");
}

// E1, E7
#[test]
fn a_peer_is_who_its_certificate_says() {
    use crate::{PeerError, peer_identity};
    let root = root();
    let issued = issue(&root, &csr(vec![]), None).unwrap();
    assert_eq!(peer_identity(&issued.leaf, now()), Ok(caller()));
    assert_eq!(
        peer_identity(&issued.leaf, now() + 2 * DAY),
        Err(PeerError::NotValidNow)
    );
    assert_eq!(peer_identity(&root.roots()[0], now()), Err(PeerError::Ca));
    assert_eq!(peer_identity(b"x", now()), Err(PeerError::Malformed));
    let key = PublicKey::from_spki_der(&KeyPair::generate().unwrap().subject_public_key_info()).unwrap();
    let server = root
        .issue_server(&key, &["a.b".to_owned()], DAY, now(), Serial([3; 16]))
        .unwrap();
    assert_eq!(
        peer_identity(&server.leaf, now()),
        Err(PeerError::UriCount { count: 0 })
    );
}
