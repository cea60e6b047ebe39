//! The certificate authority of the API: what it serves with, and certificates for clients.
//!
//! The authority is kept in the state folder, so that clients trust the same API after a restart; serving certificates are made
//! anew each time, for the names of the day.

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// As long as the authority is valid.
const AUTHORITY_DAYS: i64 = 3650;
/// As long as what it signs is valid.
const CERTIFICATE_DAYS: i64 = 365;

/// Why keys or certificates could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file of the state folder.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Making or reading a certificate.
    #[error("a certificate cannot be made or read: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Making or reading a key for tokens.
    #[error("the key {0} is damaged: remove it, then all tokens are issued anew")]
    Key(PathBuf),
    /// TLS does not take it.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// The authority.
pub(crate) struct Pki {
    certificate: String,
    key: String,
}

/// A certificate with its key, both in PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// Reads a secret file of the state folder, or makes it with what `make` gives. Only the owner can read it.
pub(crate) fn keep(
    folder: Option<&Path>,
    name: &str,
    make: impl FnOnce() -> Result<Vec<u8>, PkiError>,
) -> Result<Vec<u8>, PkiError> {
    let Some(folder) = folder else { return make() };
    let path = folder.join(name);
    match std::fs::read(&path) {
        Ok(bytes) if !bytes.is_empty() => return Ok(bytes),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(PkiError::File { path, source }),
    }
    let bytes = make()?;
    write_secret(&path, &bytes).map_err(|source| PkiError::File { path, source })?;
    Ok(bytes)
}

/// Writes a file that only the owner can read, whole or not at all.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let partial = path.with_extension("partial");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)
}

fn lifetime(params: &mut CertificateParams, days: i64) {
    let now = OffsetDateTime::now_utc();
    // Clocks of clients may be a little behind.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(days);
}

impl Pki {
    /// Reads the authority from the state folder, or makes one.
    pub(crate) fn open(folder: Option<&Path>) -> Result<Self, PkiError> {
        let both = keep(folder, "ca.pem", || {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            let mut name = DistinguishedName::new();
            name.push(DnType::CommonName, "kubernetes");
            params.distinguished_name = name;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
            lifetime(&mut params, AUTHORITY_DAYS);
            let certificate = params.self_signed(&key)?;
            Ok(format!("{}{}", certificate.pem(), key.serialize_pem()).into_bytes())
        })?;
        let text = String::from_utf8_lossy(&both).into_owned();
        let split = text.find("-----BEGIN PRIVATE KEY").unwrap_or(text.len());
        let (certificate, key) = text.split_at(split);
        let pki = Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        // A damaged file is found here, not at the first connection.
        pki.issuer()?;
        Ok(pki)
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, PkiError> {
        Ok(Issuer::from_ca_cert_pem(
            &self.certificate,
            KeyPair::from_pem(&self.key)?,
        )?)
    }

    pub(crate) fn ca_pem(&self) -> &str {
        &self.certificate
    }

    /// A certificate for a server with these names and addresses.
    pub(crate) fn server(&self, names: &[String]) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A certificate for a user.
    pub(crate) fn client(&self, user: &str, groups: &[&str]) -> Result<Identity, PkiError> {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, user);
        // A name holds one organization here; whoever needs more groups gets them by bindings.
        if let Some(group) = groups.first() {
            name.push(DnType::OrganizationName, *group);
        }
        params.distinguished_name = name;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Identity, PkiError> {
        lifetime(&mut params, CERTIFICATE_DAYS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer()?)?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// A kubeconfig for an administrator.
    pub(crate) fn kubeconfig(&self, name: &str, server: &str) -> Result<String, PkiError> {
        let admin = self.client("kubernetes-admin", &[crate::user::MASTERS])?;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        Ok(format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {name}\nclusters:\n- name: {name}\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {}\ncontexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\nusers:\n- name: \
             {name}\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
            encode(&self.certificate),
            encode(&admin.certificate),
            encode(&admin.key)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_stays_the_same_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = Pki::open(Some(folder.path())).unwrap();
        let second = Pki::open(Some(folder.path())).unwrap();
        assert_eq!(first.ca_pem(), second.ca_pem());
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder.path().join("ca.pem"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(folder.path().join("ca.pem"), "nonsense").unwrap();
        assert!(Pki::open(Some(folder.path())).is_err());
    }
}
