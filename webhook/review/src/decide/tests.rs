use super::*;
use crate::config::Images;

fn config() -> InjectConfig {
    let images: Images = serde_json::from_str(r#"{"registry": "r", "tag": "t"}"#).unwrap();
    InjectConfig::new("basic", "mesh", images)
}

fn labels(pairs: &[(&str, Option<&str>)]) -> Labels {
    pairs
        .iter()
        .filter_map(|(key, value)| Some(((*key).to_owned(), (*value)?.to_owned())))
        .collect()
}

/// One combination; `-` in the table below stands for any value, `.` for none.
#[derive(Debug, Clone, Copy)]
struct Case {
    member: bool,
    injection: Option<&'static str>,
    namespace_rev: Option<&'static str>,
    label: Option<&'static str>,
    pod_rev: Option<&'static str>,
    annotation: Option<&'static str>,
    auto: bool,
    policy: Policy,
}

impl Case {
    fn decide(&self, cluster_wide: bool) -> Decision {
        let mut config = config();
        config.cluster_wide = cluster_wide;
        config.auto_inject = self.auto;
        config.policy = self.policy;
        let namespace = labels(&[
            (MEMBER_OF, self.member.then_some("mesh")),
            (NAMESPACE_INJECTION, self.injection),
            (REVISION, self.namespace_rev),
        ]);
        let pod = labels(&[(INJECT, self.label), (REVISION, self.pod_rev)]);
        let annotations = labels(&[(INJECT, self.annotation)]);
        decide(
            &config,
            &Candidate {
                namespace: "shop",
                namespace_labels: Some(&namespace),
                labels: &pod,
                annotations: &annotations,
                host_network: false,
            },
        )
    }

    /// The cells in the order of the table's columns.
    fn cells(&self) -> [&'static str; 8] {
        [
            if self.member { "yes" } else { "no" },
            self.injection.unwrap_or("."),
            self.namespace_rev.unwrap_or("."),
            self.label.unwrap_or("."),
            self.pod_rev.unwrap_or("."),
            self.annotation.unwrap_or("."),
            if self.auto { "yes" } else { "no" },
            match self.policy {
                Policy::Enabled => "enabled",
                Policy::Disabled => "disabled",
            },
        ]
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let wishes = [None, Some("true"), Some("false"), Some("maybe")];
    let revisions = [None, Some("basic"), Some("other")];
    let mut all = Vec::new();
    for member in [true, false] {
        for injection in [None, Some("enabled"), Some("disabled")] {
            for namespace_rev in revisions {
                for label in wishes {
                    for pod_rev in revisions {
                        for annotation in wishes {
                            for auto in [true, false] {
                                for policy in [Policy::Enabled, Policy::Disabled] {
                                    let case = Case {
                                        member,
                                        injection,
                                        namespace_rev,
                                        label,
                                        pod_rev,
                                        annotation,
                                        auto,
                                        policy,
                                    };
                                    all.push(case);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    all.into_iter()
}

/// The first row that fits decides. `-` fits everything, `~` fits everything but true and false.
fn expected(table: &str, case: &Case) -> bool {
    for row in table
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (pattern, verdict) = row.split_once("=>").unwrap();
        let fits = pattern
            .split_whitespace()
            .zip(case.cells())
            .all(|(pattern, cell)| match pattern {
                "-" => true,
                "~" => cell != "true" && cell != "false",
                pattern => pattern == cell,
            });
        if fits {
            return verdict.trim() == "inject";
        }
    }
    panic!("no row fits {case:?}");
}

// B1
#[test]
fn every_combination_in_a_multi_tenant_mesh() {
    let table = "
        # member injection ns-rev label pod-rev annotation auto policy
        no  -        -     -     -     -     -   -        => nothing
        -   disabled -     -     -     -     -   -        => nothing
        -   -        -     false -     -     -   -        => nothing
        # the namespace asks
        yes enabled  -     true  -     -     -   -        => inject
        yes enabled  -     maybe -     -     -   enabled  => inject
        yes enabled  -     maybe -     -     -   disabled => nothing
        yes enabled  -     .     -     true  -   -        => inject
        yes enabled  -     .     -     false -   -        => nothing
        yes enabled  -     .     -     ~     -   enabled  => inject
        yes enabled  -     .     -     ~     -   disabled => nothing
        # the namespace chooses a revision
        yes .        other -     -     -     -   -        => nothing
        yes .        basic true  -     -     -   -        => inject
        yes .        basic maybe -     -     -   enabled  => inject
        yes .        basic maybe -     -     -   disabled => nothing
        yes .        basic .     -     true  -   -        => inject
        yes .        basic .     -     false -   -        => nothing
        yes .        basic .     -     ~     -   enabled  => inject
        yes .        basic .     -     ~     -   disabled => nothing
        # the pod chooses a revision
        yes .        .     -     other -     -   -        => nothing
        yes .        .     true  basic -     -   -        => inject
        yes .        .     maybe basic -     -   enabled  => inject
        yes .        .     maybe basic -     -   disabled => nothing
        yes .        .     .     basic true  -   -        => inject
        yes .        .     .     basic false -   -        => nothing
        yes .        .     .     basic ~     -   enabled  => inject
        yes .        .     .     basic ~     -   disabled => nothing
        # membership alone
        yes .        .     true  .     -     -   -        => inject
        yes .        .     maybe .     -     yes enabled  => inject
        yes .        .     maybe .     -     -   -        => nothing
        yes .        .     .     .     true  -   -        => inject
        yes .        .     .     .     false -   -        => nothing
        yes .        .     .     .     ~     yes enabled  => inject
        yes .        .     .     .     ~     -   -        => nothing
    ";
    for case in cases() {
        assert_eq!(
            case.decide(false).is_ok(),
            expected(table, &case),
            "{case:?}: {:?}",
            case.decide(false)
        );
    }
}

// B1
#[test]
fn every_combination_in_a_cluster_wide_mesh_without_members() {
    let table = "
        # member injection ns-rev label pod-rev annotation auto policy
        no  disabled -     -     -     -     -   -        => nothing
        no  -        -     false -     -     -   -        => nothing
        no  .        other -     -     -     -   -        => nothing
        # Istio's selectors look at labels only: an annotation alone reaches nobody
        no  .        .     -     other -     -   -        => nothing
        no  .        .     ~     .     -     no  -        => nothing
        no  -        -     true  -     -     -   -        => inject
        no  -        -     .     -     true  -   -        => inject
        no  -        -     .     -     false -   -        => nothing
        no  -        -     ~     -     -     -   enabled  => inject
        no  -        -     ~     -     -     -   disabled => nothing
    ";
    for case in cases().filter(|case| !case.member) {
        assert_eq!(
            case.decide(true).is_ok(),
            expected(table, &case),
            "{case:?}: {:?}",
            case.decide(true)
        );
    }
}

fn pod<'a>(namespace: &'a str, labels: &'a Labels, none: &'a Labels) -> Candidate<'a> {
    Candidate {
        namespace,
        namespace_labels: None,
        labels,
        annotations: none,
        host_network: false,
    }
}

// B1, B7
#[test]
fn what_would_hurt_the_cluster_is_never_injected() {
    let none = Labels::new();
    let asks = labels(&[(INJECT, Some("true"))]);
    assert_eq!(
        decide(&config(), &pod("kube-system", &asks, &none)),
        Err(Skip::SystemNamespace)
    );
    let host = Candidate {
        host_network: true,
        ..pod("shop", &asks, &none)
    };
    assert_eq!(decide(&config(), &host), Err(Skip::HostNetwork));
    let istiod = labels(&[(INJECT, Some("true")), ("app", Some("istiod"))]);
    assert_eq!(decide(&config(), &pod("mesh", &istiod, &none)), Err(Skip::ControlPlane));
}

// B1
#[test]
fn selectors_decide_about_pods_that_say_nothing() {
    let app = |name: &str| LabelSelector {
        match_labels: Some([("app".to_owned(), name.to_owned())].into()),
        ..LabelSelector::default()
    };
    let mut config = config();
    config.never_inject_selector = vec![app("batch")];
    config.always_inject_selector = vec![app("batch"), app("web")];
    config.policy = Policy::Disabled;
    let none = Labels::new();
    let (batch, web, other) = (
        labels(&[("app", Some("batch"))]),
        labels(&[("app", Some("web"))]),
        labels(&[("app", Some("x"))]),
    );
    assert_eq!(decide(&config, &pod("shop", &batch, &none)), Err(Skip::NeverSelector));
    assert_eq!(decide(&config, &pod("shop", &web, &none)), Ok(Because::AlwaysSelector));
    assert_eq!(decide(&config, &pod("shop", &other, &none)), Err(Skip::Policy));
    let batch_asks = labels(&[("app", Some("batch")), (INJECT, Some("true"))]);
    assert_eq!(decide(&config, &pod("shop", &batch_asks, &none)), Ok(Because::PodAsks));
}

// A5, B1
#[test]
fn two_control_planes_do_not_take_each_others_pods() {
    let mut second = config();
    second.default_revision = false;
    second.cluster_wide = true;
    let none = Labels::new();
    let enabled = labels(&[(NAMESPACE_INJECTION, Some("enabled"))]);
    let candidate = Candidate {
        namespace_labels: Some(&enabled),
        ..pod("shop", &none, &none)
    };
    assert_eq!(
        decide(&second, &candidate),
        Err(Skip::OtherRevision {
            chosen: "default".into()
        })
    );
    let ignored = labels(&[(MEMBER_OF, Some("mesh")), (IGNORE_NAMESPACE, Some("ignore"))]);
    let candidate = Candidate {
        namespace_labels: Some(&ignored),
        ..pod("shop", &none, &none)
    };
    assert_eq!(decide(&config(), &candidate), Err(Skip::NamespaceIgnored));
    let others = labels(&[(MEMBER_OF, Some("elsewhere")), (NAMESPACE_INJECTION, Some("enabled"))]);
    let candidate = Candidate {
        namespace_labels: Some(&others),
        ..pod("shop", &none, &none)
    };
    let skip = decide(&config(), &candidate).unwrap_err();
    assert!(
        skip.to_string().contains("ServiceMeshMemberRoll default in mesh"),
        "{skip}"
    );
}
