//! The messages of `istio.v1.auth.IstioCertificateService`, as Istio's `security/v1alpha1/ca.proto` defines them.

/// The gRPC service's full name.
pub const SERVICE_NAME: &str = "istio.v1.auth.IstioCertificateService";

/// The path of its one method.
pub const CREATE_CERTIFICATE_PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// A signing request. Field 4 (`metadata`) is what a caller says of itself; nothing here believes it, so it is not read.
#[derive(Clone, PartialEq, Eq, ::prost::Message)]
pub struct IstioCertificateRequest {
    /// PKCS#10 in PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// The wished-for life in seconds; 0 leaves it to the CA.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, ::prost::Message)]
pub struct IstioCertificateResponse {
    /// PEM, one certificate per entry: the leaf first, then intermediates; the last entry is the root (all roots, if there
    /// are several), which Istio's agents take as what they trust.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}
