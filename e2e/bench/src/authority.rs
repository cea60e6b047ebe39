//! The certificate authority of the pair's mesh: one self-signed root, life: this run.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// Signs what is asked.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

/// A certificate with its key, both in PEM.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The leaf alone; the root signed it.
    pub(crate) certificate: String,
    /// PKCS#8.
    pub(crate) key: String,
}

impl Authority {
    /// A new one.
    pub(crate) fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "mizzen-bench");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        live_for_a_day(&mut params);
        let root = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            root,
        })
    }

    /// The root's certificate in PEM.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// A certificate with a new key.
    pub(crate) fn issue(&self, names: Vec<SanType>) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        leaf(&mut params, names);
        Ok(Pair {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Answers a signing request. The key is the request's, the name ours.
    pub(crate) fn sign(&self, request: &str, identity: &str) -> Result<String> {
        let mut request = CertificateSigningRequestParams::from_pem(request).context("certificate signing request")?;
        leaf(&mut request.params, vec![uri(identity)?]);
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

/// A SPIFFE id as a certificate's name.
pub(crate) fn uri(identity: &str) -> Result<SanType> {
    Ok(SanType::URI(identity.try_into()?))
}

fn leaf(params: &mut CertificateParams, names: Vec<SanType>) {
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    live_for_a_day(params);
}

fn live_for_a_day(params: &mut CertificateParams) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::minutes(5);
    params.not_after = now + Duration::days(1);
}
