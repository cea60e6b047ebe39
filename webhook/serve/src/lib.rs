//! The admission webhooks as servers: TLS, limits, and what the decisions of `mizzen-review` need to know.
//!
//! In: AdmissionReviews over HTTPS from the API server; the injector's configuration, namespaces and (for the operator's
//! kinds) rights and other objects, from the API server too. Out: AdmissionReviews; CA bundles in the webhook
//! configurations, so that the API server trusts who answers.
//! Never: decides anything about an object itself; makes certificates (`mizzen-ca` gives a TLS configuration).
//!
//! | process | value | paths |
//! |---|---|---|
//! | control plane | [`IstiodWebhooks`] | `/inject`, `/validate` |
//! | operator | [`OperatorWebhooks`] | `/mutate-smcp`, `/mutate-smmr`, `/validate-smcp`, `/validate-smmr`, `/validate-smm` |

mod access;
mod bundle;
mod injector;
mod istiod;
mod metrics;
mod namespaces;
mod operator;
mod routes;
mod server;

pub use istiod::IstiodWebhooks;
pub use operator::{OperatorWebhooks, ServicePort, operator_configurations};
pub use routes::{Endpoint, Limits, Webhooks};
pub use server::serve;
