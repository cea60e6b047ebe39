//! The admin port of the native data plane, with the paths that Envoy's has.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, StatusCode};
use serde_json::json;

use super::server::{Answer, Call, text, typed};
use super::status::{PROMETHEUS, local_post, not_found, ready};
use super::{Admin, Shared, merge};

const HELP: &str = "\
/config_dump        configuration in use (JSON)
/server_info        version, state, uptime (JSON)
/ready              LIVE, or what is missing
/stats              counters; /stats/prometheus for Prometheus
/logging            log level; POST /logging?level=debug changes it
/drain_listeners    POST: no new inbound work
/quitquitquit       POST: end
";

pub(super) fn answer(shared: Arc<Shared>, call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let Some(admin) = shared.plane.admin() else {
            return not_found();
        };
        match call.path() {
            "/" | "/help" => text(StatusCode::OK, HELP),
            "/config_dump" => typed(StatusCode::OK, "application/json", admin.config_dump()),
            "/server_info" => typed(StatusCode::OK, "application/json", server_info(&shared, admin).await),
            "/ready" => {
                let answer = ready(&shared).await;
                if answer.status() == StatusCode::OK {
                    text(StatusCode::OK, "LIVE\n")
                } else {
                    answer
                }
            }
            "/stats" => text(StatusCode::OK, admin.stats()),
            "/stats/prometheus" => {
                let mut all = shared.plane.metrics().await;
                all.push_str(&merge::own(&shared));
                typed(StatusCode::OK, PROMETHEUS, all)
            }
            "/logging" => logging(admin, &call),
            "/drain_listeners" => local_post(&call, || shared.plane.drain()),
            "/quitquitquit" => local_post(&call, || shared.plane.quit()),
            _ => not_found(),
        }
    }
    .boxed()
}

async fn server_info(shared: &Shared, admin: &dyn Admin) -> String {
    let state = match shared.plane.ready().await {
        _ if admin.draining() => "DRAINING",
        Ok(()) => "LIVE",
        Err(_missing) => "INITIALIZING",
    };
    let uptime = format!("{}s", shared.started.elapsed().as_secs());
    let info = json!({
        "version": concat!("mizzen-proxy/", env!("CARGO_PKG_VERSION")),
        "state": state,
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "node": { "id": shared.node },
    });
    format!("{info:#}\n")
}

fn logging(admin: &dyn Admin, call: &Call) -> Answer {
    let query = call.request.uri().query().unwrap_or_default();
    let level = query.split('&').find_map(|pair| pair.strip_prefix("level="));
    // A page in a browser of somebody on this machine must not be able to change anything.
    if level.is_some() && call.request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n");
    }
    match admin.log_level(level) {
        Ok(level) => text(StatusCode::OK, format!("{level}\n")),
        Err(reason) => text(
            StatusCode::BAD_REQUEST,
            format!("level {}: {reason}\n", level.unwrap_or_default()),
        ),
    }
}
