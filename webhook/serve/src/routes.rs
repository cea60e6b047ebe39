//! Requests in, answers out: limits, spans and metrics around the reviews.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::post;
use futures::future::BoxFuture;
use mizzen_review::{Request, Response, Review};
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use crate::metrics::Metrics;

/// What a server lets itself be burdened with.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest request. Default 8 MiB: an object is 1.5 MiB at most, and an update sends two, each with its history.
    pub body_bytes: usize,
    /// Reviews at a time; more are told to come back. Default 256.
    pub concurrency: usize,
    /// The longest review. Default 4 s: webhooks are called with a limit of 5 s, and the API server should hear why.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 * 1024 * 1024,
            concurrency: 256,
            time: Duration::from_secs(4),
        }
    }
}

type Reviewer = Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>;

/// One path and who answers there.
#[derive(Clone)]
pub struct Endpoint {
    path: &'static str,
    review: Reviewer,
}

impl Endpoint {
    /// A path whose reviews need no waiting.
    pub fn immediate(path: &'static str, review: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self {
            path,
            review: Arc::new(move |request| {
                let response = review(&request);
                Box::pin(async move { response })
            }),
        }
    }

    /// A path whose reviews may have to ask.
    pub fn asking<F>(path: &'static str, review: F) -> Self
    where
        F: Fn(Request) -> BoxFuture<'static, Response> + Send + Sync + 'static,
    {
        Self {
            path,
            review: Arc::new(review),
        }
    }
}

/// Endpoints with their limits and metrics.
#[derive(Clone)]
pub struct Webhooks {
    shared: Arc<Shared>,
}

struct Shared {
    endpoints: Vec<Endpoint>,
    limits: Limits,
    metrics: Metrics,
    room: Semaphore,
}

impl Webhooks {
    /// Endpoints under limits; their metrics go into `registry`.
    pub fn new(endpoints: Vec<Endpoint>, limits: Limits, registry: &mut Registry) -> Self {
        let room = Semaphore::new(limits.concurrency);
        Self {
            shared: Arc::new(Shared {
                endpoints,
                limits,
                metrics: Metrics::register(registry),
                room,
            }),
        }
    }

    /// The routes, for [`serve`](crate::serve).
    pub fn router(&self) -> Router {
        self.shared.endpoints.iter().fold(Router::new(), |router, endpoint| {
            let state = (self.shared.clone(), endpoint.clone());
            router.route(endpoint.path, post(answer).with_state(state))
        })
    }
}

async fn answer(State((shared, endpoint)): State<(Arc<Shared>, Endpoint)>, body: Body) -> HttpResponse {
    let Ok(_permit) = shared.room.try_acquire() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "too many reviews at a time: try again");
    };
    let Ok(body) = axum::body::to_bytes(body, shared.limits.body_bytes).await else {
        return plain(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the review is too long, or did not come whole",
        );
    };
    let request = match serde_json::from_slice::<Review>(&body) {
        Ok(Review { request: Some(request) }) => request,
        Ok(Review { request: None }) => return plain(StatusCode::BAD_REQUEST, "the AdmissionReview has no request"),
        Err(error) => {
            return plain(
                StatusCode::BAD_REQUEST,
                &format!("this is not an AdmissionReview (admission.k8s.io/v1): {error}"),
            );
        }
    };
    drop(body);
    let span = tracing::info_span!(
        "admission",
        path = endpoint.path,
        kind = request.kind.kind,
        ns = request.namespace,
        name = request.name,
        uid = request.uid,
    );
    review(&shared, &endpoint, request).instrument(span).await
}

async fn review(shared: &Shared, endpoint: &Endpoint, request: Request) -> HttpResponse {
    let started = Instant::now();
    shared.metrics.start();
    let late = request.refuse(
        500,
        "the review took too long (is the API server slow to answer?): try again",
        "timeout",
    );
    let response = tokio::time::timeout(shared.limits.time, (endpoint.review)(request))
        .await
        .unwrap_or(late);
    shared.metrics.end(
        endpoint.path,
        response.is_allowed(),
        response.category,
        started.elapsed(),
    );
    if response.is_allowed() {
        tracing::debug!(category = response.category, "admitted");
    } else {
        tracing::info!(category = response.category, answer = ?response.answer, "refused");
    }
    (
        [(header::CONTENT_TYPE, "application/json")],
        response.to_json().to_string(),
    )
        .into_response()
}

fn plain(status: StatusCode, text: &str) -> HttpResponse {
    (status, text.to_owned()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http;
    use serde_json::{Value, json};
    use tower::ServiceExt as _;

    use super::*;

    fn webhooks(limits: Limits) -> Webhooks {
        let endpoints = vec![
            Endpoint::immediate("/yes", |request| request.allow("fine")),
            Endpoint::asking("/never", |_| Box::pin(std::future::pending())),
        ];
        Webhooks::new(endpoints, limits, &mut Registry::default())
    }

    async fn send(webhooks: &Webhooks, path: &str, body: String) -> (StatusCode, String) {
        let request = http::Request::post(path).body(Body::from(body)).unwrap();
        let response = webhooks.router().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn review() -> String {
        json!({"request": {"uid": "u-7", "operation": "CREATE", "object": {}}}).to_string()
    }

    // B7
    #[tokio::test]
    async fn a_review_is_answered_with_its_uid() {
        let (status, body) = send(&webhooks(Limits::default()), "/yes", review()).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body["response"], json!({"uid": "u-7", "allowed": true}));
        assert_eq!(body["kind"], "AdmissionReview");
    }

    // B7
    #[tokio::test]
    async fn what_is_no_review_or_too_much_is_turned_away() {
        let small = webhooks(Limits {
            body_bytes: 10,
            ..Limits::default()
        });
        assert_eq!(send(&small, "/yes", review()).await.0, StatusCode::PAYLOAD_TOO_LARGE);
        let none = webhooks(Limits {
            concurrency: 0,
            ..Limits::default()
        });
        assert_eq!(send(&none, "/yes", review()).await.0, StatusCode::SERVICE_UNAVAILABLE);
        let fine = webhooks(Limits::default());
        assert_eq!(send(&fine, "/yes", "{}".into()).await.0, StatusCode::BAD_REQUEST);
        assert_eq!(send(&fine, "/yes", "nonsense".into()).await.0, StatusCode::BAD_REQUEST);
        assert_eq!(send(&fine, "/elsewhere", review()).await.0, StatusCode::NOT_FOUND);
    }

    // B7
    #[tokio::test]
    async fn a_review_that_takes_too_long_refuses_with_the_reason() {
        let hasty = webhooks(Limits {
            time: Duration::from_millis(1),
            ..Limits::default()
        });
        let (status, body) = send(&hasty, "/never", review()).await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            body.contains("took too long") && body.contains("\"allowed\":false"),
            "{body}"
        );
    }
}
