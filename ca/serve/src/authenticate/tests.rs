use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{Ca, CaSettings};

/// A reviewer that knows the tokens of one account and counts how often it is asked.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) asked: AtomicUsize,
    pub(crate) away: bool,
}

impl TokenReviewer for Known {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<ReviewedToken, AuthError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let result = if self.away {
            Err(AuthError::Unavailable {
                reason: "connection refused".into(),
            })
        } else if token.ends_with(".good") {
            Ok(ReviewedToken {
                namespace: Namespace::new("shop").unwrap(),
                service_account: ServiceAccount::new("cart").unwrap(),
                pod: Some(Pod {
                    name: "cart-7".into(),
                    uid: "u-1".into(),
                }),
            })
        } else {
            Err(AuthError::Audience)
        };
        Box::pin(async move { result })
    }
}

/// A JWT for us that ends in `seconds`, with a signature of its own.
pub(crate) fn token(seconds: i64, signature: &str) -> String {
    token_for(r#","aud":["other","istio-ca"]"#, seconds, signature)
}

fn token_for(audience: &str, seconds: i64, signature: &str) -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = format!(r#"{{"exp":{}{audience}}}"#, i64::try_from(now).unwrap() + seconds);
    format!(
        "e30.{}.{signature}",
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims)
    )
}

fn authenticator(reviewer: Arc<Known>) -> Authenticator {
    Ca::ephemeral(CaSettings::default())
        .unwrap()
        .authenticator_with(reviewer)
}

fn by(token: &str) -> Credentials<'_> {
    Credentials {
        token: Some(token),
        certificates: None,
    }
}

// E7
#[tokio::test]
async fn a_token_is_reviewed_once_and_believed_for_a_minute() {
    let reviewer = Arc::new(Known::default());
    let authenticator = authenticator(reviewer.clone());
    let token = token(3600, "good");
    let start = Instant::now();
    for _ in 0..5 {
        let caller = authenticator.authenticate_at(by(&token), start).await.unwrap();
        assert_eq!(caller.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(
            caller.pod,
            Some(Pod {
                name: "cart-7".into(),
                uid: "u-1".into()
            })
        );
    }
    assert_eq!(reviewer.asked.load(Ordering::Relaxed), 1);
    authenticator
        .authenticate_at(by(&token), start + BELIEVED)
        .await
        .unwrap();
    assert_eq!(reviewer.asked.load(Ordering::Relaxed), 2);
}

// E7
#[tokio::test]
async fn refusals_are_remembered_for_a_moment_and_nonsense_is_not_asked_about() {
    let reviewer = Arc::new(Known::default());
    let authenticator = authenticator(reviewer.clone());
    let bad = token(3600, "bad");
    let start = Instant::now();
    for _ in 0..5 {
        assert_eq!(
            authenticator.authenticate_at(by(&bad), start).await,
            Err(AuthError::Audience)
        );
    }
    assert_eq!(reviewer.asked.load(Ordering::Relaxed), 1);
    assert_eq!(
        authenticator.authenticate_at(by(&bad), start + DISBELIEVED).await,
        Err(AuthError::Audience)
    );
    assert_eq!(reviewer.asked.load(Ordering::Relaxed), 2);
    for foreign in ["", r#","aud":"api""#, r#","aud":["api","vault"]"#, r#","aud":[]"#] {
        assert_eq!(
            authenticator.authenticate(by(&token_for(foreign, 3600, "good"))).await,
            Err(AuthError::Audience)
        );
    }
    for nonsense in ["", "x", "a.b.c", "a.b.c.d", &"x".repeat(20_000)] {
        assert_eq!(
            authenticator.authenticate(by(nonsense)).await,
            Err(AuthError::NotAToken)
        );
    }
    let expired = token(-5, "good");
    assert!(matches!(
        authenticator.authenticate(by(&expired)).await,
        Err(AuthError::Refused { .. })
    ));
    assert_eq!(
        authenticator.authenticate(Credentials::default()).await,
        Err(AuthError::Missing)
    );
    assert_eq!(reviewer.asked.load(Ordering::Relaxed), 2);
}

// E7
#[tokio::test]
async fn an_api_server_that_is_away_is_no_refusal() {
    let away = Arc::new(Known {
        away: true,
        ..Known::default()
    });
    let (authenticator, token) = (authenticator(away.clone()), token(60, "good"));
    for asked in 1..=2 {
        let error = authenticator.authenticate(by(&token)).await.unwrap_err();
        assert_eq!(error.status().code(), tonic::Code::Unavailable);
        // It is asked each time: nothing was said about the token.
        assert_eq!(away.asked.load(Ordering::Relaxed), asked);
    }
    assert_eq!(AuthError::Audience.status().code(), tonic::Code::Unauthenticated);
}

// E1, E7
#[tokio::test]
async fn a_current_certificate_proves_too_but_a_bad_token_beside_it_is_refused() {
    let ca = Ca::ephemeral(CaSettings::default()).unwrap();
    let identity: SpiffeId = "spiffe://cluster.local/ns/shop/sa/pay".parse().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let issued = ca.issue(csr.der(), &identity, None).unwrap();
    let shown = PeerCertificates(Arc::from(issued.chain_der()));
    let authenticator = ca.authenticator_with(Arc::new(Known::default()));
    let credentials = Credentials {
        token: None,
        certificates: Some(&shown),
    };
    assert_eq!(
        authenticator.authenticate(credentials).await,
        Ok(Caller { identity, pod: None })
    );
    let both = Credentials {
        token: Some("x"),
        certificates: Some(&shown),
    };
    assert_eq!(authenticator.authenticate(both).await, Err(AuthError::NotAToken));

    let elsewhere = CaSettings {
        trust_domain: TrustDomain::new("other").unwrap(),
        ..CaSettings::default()
    };
    let elsewhere = Ca::ephemeral(elsewhere)
        .unwrap()
        .authenticator_with(Arc::new(Known::default()));
    assert!(matches!(
        elsewhere.authenticate(credentials).await,
        Err(AuthError::TrustDomain { .. })
    ));
}

#[test]
fn bearer_tokens_are_found() {
    assert_eq!(bearer_token("Bearer abc"), Some("abc"));
    assert_eq!(bearer_token("bearer  abc "), Some("abc"));
    assert_eq!(bearer_token("Basic abc"), None);
    assert_eq!(bearer_token("Bearer "), None);
    assert_eq!(bearer_token("abc"), None);
}

// E7
#[tokio::test]
async fn refused_tokens_are_remembered_up_to_a_bound() {
    let reviewer = Arc::new(Known::default());
    let authenticator = authenticator(reviewer);
    let start = Instant::now();
    for n in 0..REFUSED + 10 {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_le_bytes());
        authenticator.inner.refuse(hash, &AuthError::Audience, start);
    }
    assert_eq!(authenticator.inner.refused.lock().len(), REFUSED);
    authenticator
        .inner
        .refuse([255; 32], &AuthError::Audience, start + DISBELIEVED);
    assert_eq!(authenticator.inner.refused.lock().len(), 1);
}
