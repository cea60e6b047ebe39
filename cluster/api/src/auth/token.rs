//! Service account tokens: JWTs signed with the API's own key (ES256).

use crate::json;
use crate::pki::{PkiError, keep};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use sha2::Digest as _;
use std::path::{Path, PathBuf};

/// Who issues, and whom a token is for that names no audience.
pub(crate) const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// What a token lives no longer than.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bound {
    /// A pod.
    Pod { name: String, uid: String, node: String },
    /// A secret.
    Secret { name: String, uid: String },
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) uid: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) issued: i64,
    pub(crate) expires: i64,
    pub(crate) id: String,
    pub(crate) bound: Option<Bound>,
}

/// Signs and verifies tokens.
pub(crate) struct Tokens {
    key: EcdsaKeyPair,
    id: String,
}

impl Tokens {
    /// Reads the key from the state folder, or makes one.
    pub(crate) fn open(folder: Option<&Path>) -> Result<Self, PkiError> {
        let name = "service-account.key";
        let path = || folder.map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
        let document = keep(folder, name, || {
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
            document
                .map(|document| document.as_ref().to_vec())
                .map_err(|_| PkiError::Key(path()))
        })?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &document);
        let key = key.map_err(|_| PkiError::Key(path()))?;
        let id = BASE64.encode(sha2::Sha256::digest(key.public_key().as_ref()));
        Ok(Self { key, id })
    }

    /// A token with these claims.
    pub(crate) fn sign(&self, claims: &Claims) -> Option<String> {
        let mut kubernetes = json!({
            "namespace": claims.namespace,
            "serviceaccount": {"name": claims.service_account, "uid": claims.uid}
        });
        match &claims.bound {
            Some(Bound::Pod { name, uid, node }) => {
                json::set(&mut kubernetes, "/pod", json!({"name": name, "uid": uid}));
                if !node.is_empty() {
                    json::set(&mut kubernetes, "/node", json!({"name": node}));
                }
            }
            Some(Bound::Secret { name, uid }) => {
                json::set(&mut kubernetes, "/secret", json!({"name": name, "uid": uid}));
            }
            None => {}
        }
        let payload = json!({
            "aud": claims.audiences, "exp": claims.expires, "iat": claims.issued, "nbf": claims.issued,
            "iss": API_AUDIENCE, "jti": claims.id, "kubernetes.io": kubernetes,
            "sub": format!("system:serviceaccount:{}:{}", claims.namespace, claims.service_account)
        });
        let header = json!({"alg": "ES256", "kid": self.id});
        let signed = format!(
            "{}.{}",
            BASE64.encode(header.to_string()),
            BASE64.encode(payload.to_string())
        );
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", BASE64.encode(signature.as_ref())))
    }

    /// The claims of a token that this key signed and that is valid now; else why not.
    pub(crate) fn verify(&self, token: &str, now: i64) -> Result<Claims, String> {
        let broken = || "invalid bearer token".to_owned();
        let (signed, signature) = token.rsplit_once('.').ok_or_else(broken)?;
        let (header, payload) = signed.split_once('.').ok_or_else(broken)?;
        let read = |text: &str| -> Option<Value> { serde_json::from_slice(&BASE64.decode(text).ok()?).ok() };
        let (header, payload) = (read(header).ok_or_else(broken)?, read(payload).ok_or_else(broken)?);
        if json::text(&header, "/alg") != "ES256" || json::text(&payload, "/iss") != API_AUDIENCE {
            return Err(broken());
        }
        let signature = BASE64.decode(signature).map_err(|_| broken())?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(signed.as_bytes(), &signature).map_err(|_| broken())?;
        let number = |field: &str| payload.get(field).and_then(Value::as_i64).unwrap_or(0);
        let claims = claims(&payload, number("iat"), number("exp"));
        if now >= claims.expires {
            return Err("service account token has expired".to_owned());
        }
        // A little, for clocks that were set back.
        if now + 10 < number("nbf") {
            return Err("service account token is not valid yet".to_owned());
        }
        Ok(claims)
    }

    /// The key set with which others verify tokens (RFC 7517).
    pub(crate) fn key_set(&self) -> Value {
        // The uncompressed point: one byte, then both coordinates.
        let point = self.key.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| BASE64.encode(point.get(range).unwrap_or_default());
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": part(1..33), "y": part(33..65)}]})
    }
}

fn claims(payload: &Value, issued: i64, expires: i64) -> Claims {
    let owned = |pointer: &str| json::text(payload, pointer).to_owned();
    let audiences = match payload.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        _ => json::texts(payload, "/aud"),
    };
    let bound = if payload.pointer("/kubernetes.io/pod").is_some() {
        Some(Bound::Pod {
            name: owned("/kubernetes.io/pod/name"),
            uid: owned("/kubernetes.io/pod/uid"),
            node: owned("/kubernetes.io/node/name"),
        })
    } else if payload.pointer("/kubernetes.io/secret").is_some() {
        Some(Bound::Secret {
            name: owned("/kubernetes.io/secret/name"),
            uid: owned("/kubernetes.io/secret/uid"),
        })
    } else {
        None
    };
    Claims {
        namespace: owned("/kubernetes.io/namespace"),
        service_account: owned("/kubernetes.io/serviceaccount/name"),
        uid: owned("/kubernetes.io/serviceaccount/uid"),
        audiences,
        issued,
        expires,
        id: owned("/jti"),
        bound,
    }
}

/// The discovery document of the issuer.
pub(crate) fn openid_configuration() -> Value {
    json!({"issuer": API_AUDIENCE, "jwks_uri": format!("{API_AUDIENCE}/openid/v1/jwks"),
        "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Claims {
        Claims {
            namespace: "n".to_owned(),
            service_account: "s".to_owned(),
            uid: "u".to_owned(),
            audiences: vec!["a".to_owned(), "b".to_owned()],
            issued: 1000,
            expires: 2000,
            id: "j".to_owned(),
            bound: Some(Bound::Pod {
                name: "p".to_owned(),
                uid: "pu".to_owned(),
                node: "k".to_owned(),
            }),
        }
    }

    #[test]
    fn a_token_says_what_was_signed_until_it_expires() {
        let tokens = Tokens::open(None).unwrap();
        let token = tokens.sign(&some()).unwrap();
        assert_eq!(tokens.verify(&token, 1999).unwrap(), some());
        assert_eq!(
            tokens.verify(&token, 2000).unwrap_err(),
            "service account token has expired"
        );
        assert!(tokens.verify(&token, 900).is_err());
    }

    #[test]
    fn a_token_of_another_key_or_with_other_claims_is_refused() {
        let tokens = Tokens::open(None).unwrap();
        let token = tokens.sign(&some()).unwrap();
        assert!(Tokens::open(None).unwrap().verify(&token, 1500).is_err());
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let payload = String::from_utf8(BASE64.decode(&parts[1]).unwrap()).unwrap();
        parts[1] = BASE64.encode(payload.replace("\"n\"", "\"m\""));
        assert!(tokens.verify(&parts.join("."), 1500).is_err());
        parts[0] = BASE64.encode("{\"alg\":\"none\"}");
        assert!(tokens.verify(&format!("{}.{}.", parts[0], parts[1]), 1500).is_err());
    }
}
