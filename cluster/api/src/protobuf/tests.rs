// N1

use super::*;
use proptest::prelude::*;

/// Without null and what a reader cannot tell from absent.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(name, value)| {
                    !value.is_null() && *name != "managedFields" && *name != "resourceVersion" && *name != "uid"
                })
                .filter(|(name, _)| *name != "creationTimestamp")
                .map(|(name, value)| (name.clone(), plain(value)))
                .filter(|(_, value)| !value.as_object().is_some_and(Map::is_empty))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        other => other.clone(),
    }
}

#[test]
fn bodies_are_read_like_their_json() {
    let recorded: Vec<Value> = serde_json::from_str(include_str!("../../recorded/protobuf.json")).unwrap();
    assert!(recorded.len() > 20);
    for pair in &recorded {
        let bytes = STANDARD.decode(pair["protobuf"].as_str().unwrap()).unwrap();
        assert_eq!(
            plain(&decode(&bytes).unwrap()),
            plain(&pair["json"]),
            "{}",
            pair["json"]["kind"]
        );
    }
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &meta), field(2, raw)].concat()
}

#[test]
fn options_of_any_group_are_those_of_meta() {
    // gracePeriodSeconds: 5, propagationPolicy: Background
    let raw = [&[0x08, 5, 0x22, 10][..], b"Background"].concat();
    let options = decode(&envelope("apps/v1", "DeleteOptions", &raw)).unwrap();
    let expected = serde_json::json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 5,
        "propagationPolicy": "Background"});
    assert_eq!(options, expected);
}

#[test]
fn what_is_not_known_or_breaks_off_is_refused() {
    assert!(matches!(decode(b"{}"), Err(ProtobufError::Malformed(_))));
    assert!(matches!(
        decode(&envelope("v1", "Pod", &[0x0a, 9, 1])),
        Err(ProtobufError::Malformed(_))
    ));
    let unknown = decode(&envelope("example.com/v1", "Thing", &[])).unwrap_err();
    assert_eq!(
        unknown,
        ProtobufError::UnknownKind {
            api_version: "example.com/v1".to_owned(),
            kind: "Thing".to_owned()
        }
    );
}

proptest! {
    #[test]
    fn no_body_panics(raw in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = decode(&envelope("v1", "Pod", &raw));
        let _ = decode(&[b"k8s\0".to_vec(), raw].concat());
    }
}
