//! The gRPC service, as Istio's agents call it.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::authenticate::{AuthError, Authenticator};
use crate::ca::{Ca, CaError};
use crate::proto::{CREATE_CERTIFICATE_PATH, IstioCertificateRequest, IstioCertificateResponse, SERVICE_NAME};

/// A request is one CSR: 16 KiB at most, and some room for `metadata`.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// `istio.v1.auth.IstioCertificateService`, ready for `tonic::service::Routes::add_service`.
#[derive(Clone)]
pub struct CertificateService {
    ca: Ca,
    authenticator: Authenticator,
}

impl CertificateService {
    pub(crate) fn new(ca: Ca, authenticator: Authenticator) -> Self {
        Self { ca, authenticator }
    }

    /// Signs for a caller with a token only. A certificate proves who somebody is, but does not buy the next one: whoever
    /// stole one could renew it for ever, while a token ends with its pod.
    async fn create_certificate(
        self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let refused = |error: &AuthError| {
            tracing::warn!(category = error.category(), %error, "signing request refused");
            error.status()
        };
        let caller = self
            .authenticator
            .authenticate_request(&request)
            .await
            .map_err(|error| refused(&error))?;
        if !request.metadata().contains_key("authorization") {
            return Err(refused(&AuthError::TokenNeeded));
        }
        let request = request.into_inner();
        // Negative counts as zero: the CA decides.
        let ttl = u64::try_from(request.validity_duration).ok().map(Duration::from_secs);
        match self.ca.issue(request.csr.as_bytes(), &caller.identity, ttl) {
            Ok(issued) => {
                tracing::debug!(identity = %caller.identity, "certificate signed");
                let mut cert_chain = issued.chain_pem();
                cert_chain.push(self.ca.root_pem());
                Ok(Response::new(IstioCertificateResponse { cert_chain }))
            }
            Err(error) => {
                let reason = crate::with_causes(&error);
                tracing::warn!(identity = %caller.identity, category = error.category(), error = reason, "signing request refused");
                Err(status_of(&error))
            }
        }
    }
}

fn status_of(error: &CaError) -> Status {
    use mizzen_issue::IssueError;
    let text = crate::with_causes(error);
    match error {
        CaError::Csr(_) | CaError::Issue(IssueError::TtlTooLong { .. }) => Status::invalid_argument(text),
        CaError::Issue(IssueError::ForeignName { .. }) => Status::permission_denied(text),
        CaError::Issue(IssueError::IssuerExpired | IssueError::IssuerNotYetValid) => Status::failed_precondition(text),
        CaError::Issue(_) => Status::internal(text),
    }
}

impl NamedService for CertificateService {
    const NAME: &'static str = SERVICE_NAME;
}

struct CreateCertificate(CertificateService);

impl UnaryService<IstioCertificateRequest> for CreateCertificate {
    type Response = IstioCertificateResponse;
    type Future = BoxFuture<Response<Self::Response>, Status>;

    fn call(&mut self, request: Request<IstioCertificateRequest>) -> Self::Future {
        Box::pin(self.0.clone().create_certificate(request))
    }
}

impl<B> Service<http::Request<B>> for CertificateService
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != CREATE_CERTIFICATE_PATH {
                let status = Status::unimplemented(format!("{SERVICE_NAME} has the method CreateCertificate only"));
                return Ok(status.into_http());
            }
            let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_REQUEST_BYTES);
            Ok(grpc.unary(CreateCertificate(service), request).await)
        })
    }
}

#[cfg(test)]
mod tests;
