use super::*;

fn services() -> Vec<Arc<Service>> {
    let all = serde_json::json!([
        {"metadata": {"name": "web", "namespace": "a"}, "spec": {"clusterIP": "10.96.0.7",
            "ports": [{"name": "http", "port": 80}]}},
        {"metadata": {"name": "db", "namespace": "a"}, "spec": {"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}},
        {"metadata": {"name": "far", "namespace": "a"}, "spec": {"type": "ExternalName", "externalName": "far.example"}},
    ]);
    serde_json::from_value(all).unwrap()
}

fn slices() -> Vec<Arc<EndpointSlice>> {
    let all = serde_json::json!([{"addressType": "IPv4",
    "metadata": {"name": "db-1", "namespace": "a", "labels": {"kubernetes.io/service-name": "db"}},
    "ports": [{"name": "sql", "port": 5433}],
    "endpoints": [
        {"addresses": ["10.244.0.4"], "hostname": "db-0", "conditions": {"ready": true}},
        {"addresses": ["10.244.0.5"], "conditions": {"ready": true}},
        {"addresses": ["10.244.0.6"], "conditions": {"ready": false}},
    ]}]);
    serde_json::from_value(all).unwrap()
}

fn found(name: &str) -> Option<Option<Vec<Record>>> {
    look_up(name, "cluster.local", &services(), &slices())
}

fn address(text: &str) -> Record {
    Record::Address(text.parse().unwrap())
}

#[test]
fn names_of_the_cluster_are_answered_from_its_objects() {
    assert_eq!(found("web.a.svc.cluster.local"), Some(Some(vec![address("10.96.0.7")])));
    let both = vec![address("10.244.0.4"), address("10.244.0.5")];
    assert_eq!(
        found("db.a.svc.cluster.local"),
        Some(Some(both)),
        "headless: ready endpoints"
    );
    assert_eq!(
        found("db-0.db.a.svc.cluster.local"),
        Some(Some(vec![address("10.244.0.4")]))
    );
    assert_eq!(
        found("10-244-0-5.db.a.svc.cluster.local"),
        Some(Some(vec![address("10.244.0.5")]))
    );
    assert_eq!(
        found("1-2-3-4.a.pod.cluster.local"),
        Some(Some(vec![address("1.2.3.4")]))
    );
    assert_eq!(
        found("far.a.svc.cluster.local"),
        Some(Some(vec![Record::Alias("far.example".into())]))
    );
    let service = Record::Service {
        port: 80,
        target: "web.a.svc.cluster.local".into(),
        address: Ipv4Addr::new(10, 96, 0, 7),
    };
    assert_eq!(found("_http._tcp.web.a.svc.cluster.local"), Some(Some(vec![service])));
    assert_eq!(
        found("7.0.96.10.in-addr.arpa"),
        Some(Some(vec![Record::Name("web.a.svc.cluster.local".into())]))
    );
}

#[test]
fn unknown_names_of_the_cluster_do_not_exist_and_others_are_not_ours() {
    assert_eq!(found("web.b.svc.cluster.local"), Some(None));
    assert_eq!(found("example.org.cluster.local"), Some(None));
    assert_eq!(found("example.org"), None);
    assert_eq!(found("4.3.2.1.in-addr.arpa"), None);
}

#[test]
fn a_reply_repeats_the_question_and_counts_what_fits_its_type() {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(&encode("WEB.a"));
    query.extend_from_slice(&[0, 1, 0, 1]);
    let question = parse(&query).unwrap();
    assert_eq!((question.name.as_str(), question.kind), ("web.a", A));
    let answer = reply(&query, &question, Ok(&[address("1.2.3.4"), Record::Name("x".into())]));
    assert_eq!(answer[..12], [0x12, 0x34, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    assert_eq!(
        answer[answer.len() - 16..],
        [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 1, 2, 3, 4]
    );
    assert_eq!(reply(&query, &question, Err(NAME_ERROR))[3], 0x83);
    assert!(parse(&query[..14]).is_none(), "cut short");
}
