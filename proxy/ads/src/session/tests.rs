use super::*;
use envoy_types::pb::envoy::config::cluster::v3 as cluster_pb;
use envoy_types::pb::envoy::config::listener::v3 as listener_pb;
use envoy_types::pb::envoy::config::route::v3 as route_pb;
use prost::Message;

fn cluster(name: &str) -> Received {
    let body = cluster_pb::Cluster {
        name: name.to_owned(),
        ..Default::default()
    }
    .encode_to_vec();
    received(name, "1", Kind::Cluster, body)
}

fn received(name: &str, version: &str, kind: Kind, body: Vec<u8>) -> Received {
    Received {
        name: name.to_owned(),
        version: version.to_owned(),
        type_url: kind.type_url().to_owned(),
        body: Some(body),
        ..Received::default()
    }
}

fn bad_cluster(name: &str) -> Received {
    // A cluster without a name of its own.
    received(name, "2", Kind::Cluster, Vec::new())
}

fn response(kind: Kind, nonce: &str, resources: Vec<Received>, removed: &[&str]) -> Event {
    Event::Response(DeltaResponse {
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_owned(),
        resources,
        removed: removed.iter().map(|&name| name.to_owned()).collect(),
    })
}

fn ask(names: &[&str]) -> Event {
    Event::Subscribe(Kind::Cluster, names.iter().map(|&name| name.into()).collect())
}

fn sent(actions: &[Action]) -> Vec<&DeltaRequest> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Send(request) => Some(request),
            _ => None,
        })
        .collect()
}

fn request(kind: Kind) -> DeltaRequest {
    DeltaRequest {
        type_url: kind.type_url().to_owned(),
        ..DeltaRequest::default()
    }
}

#[test]
fn names_are_asked_for_once_and_the_node_goes_first() {
    let mut session = Session::new();
    assert_eq!(session.step(ask(&["a"])), []);
    let first = session.step(Event::Connected);
    assert_eq!(
        sent(&first),
        [&DeltaRequest {
            first: true,
            subscribe: vec!["a".to_owned()],
            ..request(Kind::Cluster)
        }]
    );
    assert_eq!(session.step(ask(&["a"])), []);
    let second = session.step(ask(&["a", "b", "*"]));
    assert_eq!(
        sent(&second),
        [&DeltaRequest {
            subscribe: vec!["b".to_owned()],
            ..request(Kind::Cluster)
        }]
    );
    assert_eq!(session.names(), 2);
}

#[test]
fn what_arrives_is_applied_and_acknowledged() {
    let mut session = Session::new();
    session.step(Event::Connected);
    session.step(ask(&["a", "gone"]));
    let actions = session.step(response(
        Kind::Cluster,
        "n1",
        vec![cluster("a"), cluster("not asked for")],
        &["gone"],
    ));
    let [
        Action::Apply(name, Resource::Cluster(value)),
        Action::Remove(Kind::Cluster, gone),
        Action::Send(ack),
    ] = &*actions
    else {
        panic!("{actions:?}")
    };
    assert_eq!((&**name, value.name.as_str(), &**gone), ("a", "a", "gone"));
    assert_eq!(
        *ack,
        DeltaRequest {
            nonce: "n1".to_owned(),
            ..request(Kind::Cluster)
        }
    );
}

// G1
#[test]
fn a_bad_resource_is_refused_by_name_and_the_last_good_one_and_the_others_stay() {
    let mut session = Session::new();
    session.step(Event::Connected);
    session.step(ask(&["a", "b"]));
    session.step(response(Kind::Cluster, "n1", vec![cluster("a")], &[]));
    let actions = session.step(response(Kind::Cluster, "n2", vec![bad_cluster("a"), cluster("b")], &[]));
    let [
        Action::Rejected(_, rejected, _),
        Action::Apply(applied, _),
        Action::Send(nack),
    ] = &*actions
    else {
        panic!("{actions:?}")
    };
    assert_eq!((&**rejected, &**applied), ("a", "b"));
    assert_eq!(nack.error.as_deref(), Some("a: cluster.name: is required; set it"));
    assert_eq!(nack.nonce, "n2");
    // The last good version is what is held.
    session.step(Event::Disconnected);
    let again = session.step(Event::Connected);
    let held: Vec<_> = sent(&again)[0]
        .held
        .iter()
        .map(|(name, version)| (name.as_str(), version.as_str()))
        .collect();
    assert_eq!(held, [("a", "1"), ("b", "1")]);
}

#[test]
fn a_bad_resource_without_a_good_one_refuses_traffic() {
    let mut session = Session::new();
    session.step(Event::Connected);
    session.step(Event::Subscribe(Kind::VirtualHost, vec!["80/a".into()]));
    session.step(ask(&["c"]));
    let garbage = received("80/a", "1", Kind::VirtualHost, vec![0xff]);
    let actions = session.step(response(Kind::VirtualHost, "n", vec![garbage], &[]));
    let Action::Apply(_, Resource::VirtualHost(closed)) = &actions[1] else {
        panic!("{actions:?}")
    };
    assert!(matches!(
        closed.routes[0].action,
        mizzen_proxy_config::Action::Unavailable(_)
    ));
    // No cluster means no traffic by itself.
    let actions = session.step(response(Kind::Cluster, "n", vec![bad_cluster("c")], &[]));
    assert!(
        actions.contains(&Action::Remove(Kind::Cluster, "c".into())),
        "{actions:?}"
    );
    // It was never accepted, so nothing is said to be held.
    session.step(Event::Disconnected);
    assert!(
        sent(&session.step(Event::Connected))
            .iter()
            .all(|request| request.held.is_empty())
    );
}

#[test]
fn a_part_that_is_understood_is_used_until_there_is_something_good() {
    let mut session = Session::new();
    session.step(Event::Connected);
    session.step(Event::Subscribe(Kind::VirtualHost, vec!["80/a".into()]));
    let routes = vec![route_pb::Route::default()];
    let partly = route_pb::VirtualHost {
        domains: vec!["a".to_owned()],
        routes,
        ..Default::default()
    };
    let actions = session.step(response(
        Kind::VirtualHost,
        "n",
        vec![received("80/a", "1", Kind::VirtualHost, partly.encode_to_vec())],
        &[],
    ));
    let Action::Apply(_, Resource::VirtualHost(host)) = &actions[1] else {
        panic!("{actions:?}")
    };
    assert_eq!(&*host.domains[0], "a");
    assert!(sent(&actions)[0].error.is_some());
}

#[test]
fn a_resource_of_another_type_or_for_an_unknown_type_is_refused() {
    let mut session = Session::new();
    session.step(Event::Connected);
    session.step(ask(&["a"]));
    let mut wrong = cluster("a");
    wrong.type_url = Kind::Listener.type_url().to_owned();
    let actions = session.step(response(Kind::Cluster, "n", vec![wrong], &[]));
    assert!(sent(&actions)[0].error.as_ref().unwrap().contains("not a"));
    let unknown = Event::Response(DeltaResponse {
        type_url: "x".to_owned(),
        nonce: "m".to_owned(),
        ..Default::default()
    });
    let actions = session.step(unknown);
    assert_eq!(sent(&actions)[0].type_url, "x");
    assert!(sent(&actions)[0].error.is_some());
}

#[test]
fn a_removed_name_can_come_back_and_an_alias_counts() {
    let mut session = Session::new();
    session.step(Event::Connected);
    session.step(ask(&["a"]));
    session.step(response(Kind::Cluster, "1", Vec::new(), &["a"]));
    let mut named_otherwise = cluster("canonical");
    named_otherwise.aliases = vec!["a".to_owned(), "not asked for".to_owned()];
    let actions = session.step(response(Kind::Cluster, "2", vec![named_otherwise], &[]));
    assert!(
        matches!(&actions[..], [Action::Apply(name, _), Action::Send(_)] if &**name == "a"),
        "{actions:?}"
    );
}

#[test]
fn what_is_given_up_is_told_and_no_longer_applied() {
    let mut session = Session::new();
    session.step(Event::Connected);
    session.step(ask(&["a"]));
    let actions = session.step(Event::Unsubscribe(
        Kind::Cluster,
        vec!["a".into(), "never asked".into()],
    ));
    assert_eq!(
        sent(&actions),
        [&DeltaRequest {
            unsubscribe: vec!["a".to_owned()],
            ..request(Kind::Cluster)
        }]
    );
    let late = session.step(response(Kind::Cluster, "1", vec![cluster("a")], &[]));
    assert!(matches!(&late[..], [Action::Send(_)]));
    assert_eq!(session.names(), 0);
}

#[test]
fn a_kind_that_is_wanted_whole_takes_any_name_and_forgets_removed_ones() {
    let mut session = Session::new();
    session.step(Event::SubscribeAll(Kind::Listener));
    let actions = session.step(Event::Connected);
    assert_eq!(sent(&actions)[0].subscribe, ["*"]);
    assert_eq!(session.step(Event::SubscribeAll(Kind::Listener)), []);
    let message = listener_pb::Listener {
        name: "0.0.0.0_8080".to_owned(),
        ..Default::default()
    };
    let listener = received("0.0.0.0_8080", "7", Kind::Listener, message.encode_to_vec());
    let actions = session.step(response(Kind::Listener, "n", vec![listener], &[]));
    // Without an address it is refused, and closed in the meantime.
    assert!(matches!(&actions[1], Action::Apply(name, Resource::Listener(_)) if &**name == "0.0.0.0_8080"));
    let actions = session.step(response(Kind::Listener, "m", Vec::new(), &["0.0.0.0_8080", "unknown"]));
    assert_eq!(actions[0], Action::Forget(Kind::Listener, "0.0.0.0_8080".into()));
    assert_eq!(actions.len(), 2);
}

#[test]
fn a_nack_names_its_resources_within_bounds() {
    let mut session = Session::new();
    session.step(Event::Connected);
    let names: Vec<String> = (0..500).map(|i| format!("outbound|80||service-{i}.é")).collect();
    session.step(Event::Subscribe(
        Kind::Cluster,
        names.iter().map(|name| name.as_str().into()).collect(),
    ));
    let actions = session.step(response(
        Kind::Cluster,
        "n",
        names.iter().map(|name| bad_cluster(name)).collect(),
        &[],
    ));
    let error = sent(&actions)[0].error.clone().unwrap();
    assert!(
        error.contains(&names[0]) && error.len() <= NACK_LENGTH + 4,
        "{}",
        error.len()
    );
}
