//! The operator's webhooks: control planes, member rolls and members.

mod configuration;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, Resource};
use mizzen_crds::maistra::{ServiceMeshControlPlane, ServiceMeshMemberRoll};
use mizzen_desired::Settings;
use mizzen_review::{
    Answers, OperatorContext, Request, Response, Step, mutate_mesh, mutate_roll, review_member, review_mesh,
    review_roll,
};
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access;
use crate::routes::{Endpoint, Limits, Webhooks};
use crate::server;

pub use configuration::{ServicePort, operator_configurations};

/// Who answers for the operator's kinds. Cheap to clone.
#[derive(Clone)]
pub struct OperatorWebhooks {
    client: Client,
    webhooks: Webhooks,
}

type Judge = fn(&Request, &OperatorContext, &Answers) -> Step;

#[derive(Clone)]
struct Reviewer {
    client: Client,
    settings: Settings,
    operator_user: String,
}

impl OperatorWebhooks {
    /// The webhooks of an operator that runs as `operator_user` (`system:serviceaccount:<namespace>:<name>`).
    pub fn new(client: Client, settings: Settings, operator_user: String, registry: &mut Registry) -> Self {
        let reviewer = Reviewer {
            client: client.clone(),
            settings,
            operator_user,
        };
        let endpoints = vec![
            Endpoint::computing("/mutate-smcp", mutate_mesh),
            Endpoint::computing("/mutate-smmr", mutate_roll),
            reviewer.endpoint("/validate-smcp", review_mesh),
            reviewer.endpoint("/validate-smmr", review_roll),
            reviewer.endpoint("/validate-smm", review_member),
        ];
        Self {
            client,
            webhooks: Webhooks::new(endpoints, Limits::default(), registry),
        }
    }

    /// Serves until `stop`. Meanwhile the webhook configurations lead to `service` and trust `ca_pem`; they are written when
    /// the server listens, and repaired.
    pub async fn run(
        self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        service: ServicePort,
        ca_pem: String,
        stop: CancellationToken,
        drain: Duration,
    ) {
        let (mutating, validating) = operator_configurations(&service, &ca_pem);
        let mut tasks = JoinSet::new();
        tasks.spawn(configuration::keep::<MutatingWebhookConfiguration>(
            self.client.clone(),
            mutating,
        ));
        tasks.spawn(configuration::keep::<ValidatingWebhookConfiguration>(
            self.client,
            validating,
        ));
        server::serve(listener, tls, self.webhooks.router(), stop, drain).await;
        tasks.shutdown().await;
    }
}

impl Reviewer {
    fn endpoint(&self, path: &'static str, judge: Judge) -> Endpoint {
        let reviewer = self.clone();
        Endpoint::asking(path, move |request| -> BoxFuture<'static, Response> {
            let reviewer = reviewer.clone();
            Box::pin(async move { reviewer.review(request, judge).await })
        })
    }

    async fn review(&self, request: Request, judge: Judge) -> Response {
        let context = match self.context().await {
            Ok(context) => context,
            Err(error) => {
                return request.refuse(
                    500,
                    format!("the API server cannot be asked: {error}"),
                    "api_unavailable",
                );
            }
        };
        let mut answers = Answers::new();
        // Twice at most: a review asks everything at once.
        for _ in 0..2 {
            let questions = match judge(&request, &context, &answers) {
                Step::Done(response) => return response,
                Step::Ask(questions) => questions,
            };
            match access::ask(&self.client, &request.user_info, questions).await {
                Ok(answered) => answers.extend(answered),
                Err(message) => return request.refuse(500, message, "api_unavailable"),
            }
        }
        match judge(&request, &context, &answers) {
            Step::Done(response) => response,
            Step::Ask(_) => request.refuse(
                500,
                "the user's rights could not be settled: try again",
                "api_unavailable",
            ),
        }
    }

    /// What there is now: these objects are few and change seldom, so that a list beats a cache that may be behind.
    async fn context(&self) -> Result<OperatorContext, kube::Error> {
        let (meshes, rolls) = futures::try_join!(
            self.list::<ServiceMeshControlPlane>(),
            self.list::<ServiceMeshMemberRoll>()
        )?;
        Ok(OperatorContext {
            settings: self.settings.clone(),
            operator_user: self.operator_user.clone(),
            meshes,
            rolls,
        })
    }

    /// One object that cannot be read does not hide the others.
    async fn list<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Result<Vec<K>, kube::Error> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &ApiResource::erase::<K>(&()));
        let listed = api.list(&ListParams::default()).await?;
        let types = kube::core::TypeMeta::resource::<K>();
        Ok(listed
            .items
            .into_iter()
            .filter_map(|mut object| {
                object.types.get_or_insert_with(|| types.clone());
                serde_json::from_value(serde_json::to_value(object).ok()?).ok()
            })
            .collect())
    }
}
