//! create and update.

use super::body::{self, check_options};
use super::object::{self, modify};
use super::read::respond_object;
use crate::json;
use crate::negotiate::Body;
use crate::service::Call;
use crate::status::ApiError;
use http::Response;

pub(crate) async fn create(call: &mut Call, text: &[u8]) -> Result<Response<Body>, ApiError> {
    check_options(call, "CreateOptions")?;
    let new = body::read(call, text)?;
    call.info.name = json::text(&new, "/metadata/name").to_owned();
    let value = object::create(call, new, false).await?;
    Ok(respond_object(call, 201, &value))
}

/// Kinds that an update creates where they are missing.
fn creates_on_update(call: &Call) -> bool {
    let resource = &call.resource;
    resource.custom.is_none()
        && call.info.subresource.is_empty()
        && matches!(
            resource.plural.as_str(),
            "endpoints"
                | "leases"
                | "events"
                | "services"
                | "roles"
                | "rolebindings"
                | "clusterroles"
                | "clusterrolebindings"
        )
}

pub(crate) async fn update(call: &mut Call, text: &[u8]) -> Result<Response<Body>, ApiError> {
    check_options(call, "UpdateOptions")?;
    let new = body::read(call, text)?;
    if creates_on_update(call) && super::read::find(call).is_err() {
        let mut new = new;
        json::default(json::object(&mut new, "metadata"), "name", call.info.name.clone());
        let value = object::create(call, new, false).await?;
        return Ok(respond_object(call, 201, &value));
    }
    let outcome = modify(call, false, |_, _| Ok(new.clone())).await?;
    Ok(respond_object(call, 200, &outcome.into_value()))
}
