//! Requests in, answers out: limits, spans and metrics around the reviews.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::post;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use mizzen_review::{Request, Response, Review};
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::metrics::Metrics;

/// What a server lets itself be burdened with.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest request. Default 8 MiB: an object is 1.5 MiB at most, and an update sends two, each with its history.
    pub body_bytes: usize,
    /// The longest time in which a request may come in. Default 2 s: who may call is not proven, so whoever sends slowly
    /// must not hold anything for long.
    pub body_time: Duration,
    /// KiB of requests that are held at a time, counted as they arrive. Default 64 MiB.
    pub held_kib: usize,
    /// Reviews at a time, counted from when the request is whole; more are told to come back. Default 256.
    pub concurrency: usize,
    /// The longest review, the coming in included. Default 4 s: webhooks are called with a limit of 5 s, and the API
    /// server should hear why.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 * 1024 * 1024,
            body_time: Duration::from_secs(2),
            held_kib: 64 * 1024,
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
    /// A path whose reviews only compute. They do so beside the runtime: what takes long for a huge object must not keep other
    /// reviews, or the streams that the same process serves, waiting.
    pub fn computing(path: &'static str, review: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let review = Arc::new(review);
        Self {
            path,
            review: Arc::new(move |request| {
                let review = review.clone();
                Box::pin(async move {
                    let broken = request.refuse(500, "the review broke off: try again", "internal");
                    spawn_blocking(move || review(&request)).await.unwrap_or(broken)
                })
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
    /// In KiB.
    bytes: Semaphore,
}

impl Webhooks {
    /// Endpoints under limits; their metrics go into `registry`.
    pub fn new(endpoints: Vec<Endpoint>, limits: Limits, registry: &mut Registry) -> Self {
        let room = Semaphore::new(limits.concurrency);
        let bytes = Semaphore::new(limits.held_kib.min(Semaphore::MAX_PERMITS));
        Self {
            shared: Arc::new(Shared {
                endpoints,
                limits,
                metrics: Metrics::register(registry),
                room,
                bytes,
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

/// Anybody in the cluster can call, so nothing is held for a request that only promises to come: its bytes count as they
/// arrive, it must be whole in time, and only then it takes one of the places.
async fn answer(State((shared, endpoint)): State<(Arc<Shared>, Endpoint)>, body: Body) -> HttpResponse {
    let started = Instant::now();
    let (body, _held) = match timeout(shared.limits.body_time, whole(&shared, body)).await {
        Ok(Ok(whole)) => whole,
        Ok(Err(turned_away)) => return turned_away.into_response(),
        Err(_) => return TurnedAway::Slow.into_response(),
    };
    let Ok(_permit) = shared.room.try_acquire() else {
        return TurnedAway::Busy.into_response();
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
    review(&shared, &endpoint, request, started).instrument(span).await
}

/// Why a request is turned away before anybody looks into it.
enum TurnedAway {
    Slow,
    Cut,
    TooLong,
    Busy,
}

impl IntoResponse for TurnedAway {
    fn into_response(self) -> HttpResponse {
        match self {
            Self::Slow => plain(
                StatusCode::REQUEST_TIMEOUT,
                "the review did not come whole in time: send it again",
            ),
            Self::Cut => plain(StatusCode::BAD_REQUEST, "the review did not come whole"),
            Self::TooLong => plain(StatusCode::PAYLOAD_TOO_LARGE, "the review is too long"),
            Self::Busy => plain(StatusCode::SERVICE_UNAVAILABLE, "too many reviews at a time: try again"),
        }
    }
}

/// The whole body, with its share of the bytes that may be held.
async fn whole<'a>(shared: &'a Shared, body: Body) -> Result<(Vec<u8>, SemaphorePermit<'a>), TurnedAway> {
    let share = |kib: usize| {
        let kib = u32::try_from(kib).map_err(|_| TurnedAway::TooLong)?;
        shared.bytes.try_acquire_many(kib).map_err(|_| TurnedAway::Busy)
    };
    let mut held = share(0)?;
    let mut bytes = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| TurnedAway::Cut)?;
        let length = bytes.len() + chunk.len();
        if length > shared.limits.body_bytes {
            return Err(TurnedAway::TooLong);
        }
        held.merge(share(length.div_ceil(1024).saturating_sub(held.num_permits()))?);
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes, held))
}

async fn review(shared: &Shared, endpoint: &Endpoint, request: Request, started: Instant) -> HttpResponse {
    shared.metrics.start();
    let late = request.refuse(
        500,
        "the review took too long (is the API server slow to answer?): try again",
        "timeout",
    );
    let left = shared.limits.time.saturating_sub(started.elapsed());
    let response = timeout(left, (endpoint.review)(request)).await.unwrap_or(late);
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
            Endpoint::computing("/yes", |request| request.allow("fine")),
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
    async fn requests_that_never_come_whole_hold_no_place_and_are_told_so() {
        let webhooks = webhooks(Limits {
            concurrency: 1,
            body_time: Duration::from_millis(200),
            ..Limits::default()
        });
        let stuck: Vec<_> = (0..20)
            .map(|_| {
                let body = Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>());
                let request = http::Request::post("/yes").body(body).unwrap();
                tokio::spawn(webhooks.router().oneshot(request))
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(send(&webhooks, "/yes", review()).await.0, StatusCode::OK);
        for stuck in stuck {
            assert_eq!(stuck.await.unwrap().unwrap().status(), StatusCode::REQUEST_TIMEOUT);
        }
    }

    // B7
    #[tokio::test]
    async fn more_bytes_than_may_be_held_are_told_to_come_back_and_are_given_back() {
        let webhooks = webhooks(Limits {
            held_kib: 4,
            body_time: Duration::from_millis(200),
            ..Limits::default()
        });
        let part = futures::stream::iter([Ok::<_, std::io::Error>("x".repeat(4000))]);
        let body = Body::from_stream(part.chain(futures::stream::pending()));
        let request = http::Request::post("/yes").body(body).unwrap();
        let holding = tokio::spawn(webhooks.router().oneshot(request));
        tokio::task::yield_now().await;
        assert_eq!(
            send(&webhooks, "/yes", review()).await.0,
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert_eq!(holding.await.unwrap().unwrap().status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(send(&webhooks, "/yes", review()).await.0, StatusCode::OK);
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
