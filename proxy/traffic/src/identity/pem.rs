//! DER to PEM, for peers that take nothing else.

use base64::Engine as _;
use rustls_pki_types::PrivateKeyDer;

/// One PEM block.
pub(crate) fn block(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII, so every position is a boundary.
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// Certificates in order.
pub(crate) fn certificates<'a, D: AsRef<[u8]> + 'a>(chain: impl IntoIterator<Item = &'a D>) -> String {
    chain
        .into_iter()
        .map(|der| block("CERTIFICATE", der.as_ref()))
        .collect()
}

/// A private key in its own encoding.
pub(crate) fn private_key(key: &PrivateKeyDer<'_>) -> String {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    block(label, key.secret_der())
}
