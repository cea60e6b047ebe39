//! Tokens reviewed by the API server.

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};
use mizzen_identity::{Namespace, ServiceAccount};

use crate::authenticate::{AuthError, Pod, ReviewedToken, TokenReviewer};

/// What a token must be made for.
pub const TOKEN_AUDIENCE: &str = "istio-ca";

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Asks the API server whose a token is (`TokenReview`).
#[derive(Clone)]
pub struct KubeTokenReviewer {
    reviews: Api<TokenReview>,
}

impl KubeTokenReviewer {
    /// Asks through `client`, which must be allowed to create TokenReviews.
    pub fn new(client: Client) -> Self {
        Self {
            reviews: Api::all(client),
        }
    }
}

impl TokenReviewer for KubeTokenReviewer {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<ReviewedToken, AuthError>> {
        Box::pin(async move {
            let question = TokenReview {
                spec: TokenReviewSpec {
                    audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
                    token: Some(token.to_owned()),
                },
                ..TokenReview::default()
            };
            match self.reviews.create(&PostParams::default(), &question).await {
                Ok(answer) => read(answer),
                Err(error) => Err(AuthError::Unavailable {
                    reason: error.to_string(),
                }),
            }
        })
    }
}

fn read(answer: TokenReview) -> Result<ReviewedToken, AuthError> {
    let status = answer.status.unwrap_or_default();
    if status.authenticated != Some(true) {
        let reason = status
            .error
            .unwrap_or_else(|| "it is not valid (expired, or its pod is gone)".to_owned());
        return Err(AuthError::Refused { reason });
    }
    // An API server that knows no audiences answers without any: such a token proves nothing to us.
    if !status
        .audiences
        .is_some_and(|audiences| audiences.iter().any(|audience| audience == TOKEN_AUDIENCE))
    {
        return Err(AuthError::Audience);
    }
    let user = status.user.unwrap_or_default();
    let pod = pod_of(&user);
    let name = user.username.unwrap_or_default();
    let stranger = || AuthError::NotAServiceAccount { user: name.clone() };
    let (namespace, service_account) = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
        .ok_or_else(stranger)?;
    Ok(ReviewedToken {
        namespace: Namespace::new(namespace).map_err(|_| stranger())?,
        service_account: ServiceAccount::new(service_account).map_err(|_| stranger())?,
        pod,
    })
}

fn pod_of(user: &UserInfo) -> Option<Pod> {
    let extra = user.extra.as_ref()?;
    let one = |key| extra.get(key).and_then(|values: &Vec<String>| values.first()).cloned();
    Some(Pod {
        name: one(POD_NAME)?,
        uid: one(POD_UID)?,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::TokenReviewStatus;

    use super::*;

    fn answer(user: &str, audience: &str) -> TokenReview {
        let extra = [(POD_NAME, "cart-7"), (POD_UID, "u-1")].map(|(k, v)| (k.to_owned(), vec![v.to_owned()]));
        TokenReview {
            status: Some(TokenReviewStatus {
                authenticated: Some(true),
                audiences: Some(vec![audience.to_owned()]),
                user: Some(UserInfo {
                    username: Some(user.to_owned()),
                    extra: Some(extra.into()),
                    ..UserInfo::default()
                }),
                error: None,
            }),
            ..TokenReview::default()
        }
    }

    // E7
    #[test]
    fn a_review_names_account_and_pod() {
        assert_eq!(
            read(answer("system:serviceaccount:shop:cart", TOKEN_AUDIENCE)),
            Ok(ReviewedToken {
                namespace: Namespace::new("shop").unwrap(),
                service_account: ServiceAccount::new("cart").unwrap(),
                pod: Some(Pod {
                    name: "cart-7".into(),
                    uid: "u-1".into()
                }),
            })
        );
    }

    // E7
    #[test]
    fn what_is_not_a_token_for_the_mesh_is_refused() {
        assert_eq!(
            read(answer("system:serviceaccount:shop:cart", "vault")),
            Err(AuthError::Audience)
        );
        let mut no_audience = answer("system:serviceaccount:shop:cart", "x");
        no_audience.status.as_mut().unwrap().audiences = None;
        assert_eq!(read(no_audience), Err(AuthError::Audience));
        let admin = AuthError::NotAServiceAccount { user: "admin".into() };
        assert_eq!(read(answer("admin", TOKEN_AUDIENCE)), Err(admin));
        let mut expired = answer("system:serviceaccount:shop:cart", TOKEN_AUDIENCE);
        expired.status.as_mut().unwrap().authenticated = Some(false);
        assert!(matches!(read(expired), Err(AuthError::Refused { .. })));
        assert!(matches!(read(TokenReview::default()), Err(AuthError::Refused { .. })));
    }
}
