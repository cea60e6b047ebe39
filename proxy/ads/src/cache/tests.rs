use super::*;
use mizzen_proxy_config::{Resource, VirtualHost};

fn host(name: &str) -> Answer {
    Answer::Present(Resource::VirtualHost(Arc::new(VirtualHost::closed(name, "".into()))))
}

fn apply(cache: &Cache, name: &str, answer: Answer) {
    cache.apply([(Kind::VirtualHost, Arc::from(name), answer)]);
}

const KIND: Kind = Kind::VirtualHost;

#[test]
fn the_first_question_subscribes_and_the_answer_is_told() {
    let cache = Cache::default();
    let mut changes = cache.changes();
    assert_eq!(cache.ask(KIND, "a"), Answer::Requested);
    assert_eq!(cache.ask(KIND, "a"), Answer::Requested);
    assert_eq!(cache.take_wishes().subscribe[&KIND], ["a".into()]);
    assert!(cache.take_wishes().is_empty());
    assert!(!changes.has_changed().unwrap());
    apply(&cache, "a", host("a"));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(cache.ask(KIND, "a"), host("a"));
    apply(&cache, "a", Answer::Absent);
    assert_eq!(cache.ask(KIND, "a"), Answer::Absent);
    assert!(changes.has_changed().unwrap());
    assert!(cache.take_wishes().is_empty());
}

#[test]
fn what_nobody_asks_for_is_forgotten_after_readers_had_a_chance() {
    let cache = Cache::new(Limits {
        names: 10,
        idle_sweeps: 2,
    });
    let mut changes = cache.changes();
    for name in ["used", "unused", "pinned"] {
        cache.ask(KIND, name);
        apply(&cache, name, host(name));
    }
    cache.pin(KIND, "pinned");
    cache.take_wishes();
    changes.mark_unchanged();
    assert_eq!(cache.sweep(), 0);
    assert!(!changes.has_changed().unwrap());
    assert_eq!(cache.sweep(), 0);
    // Readers that hold answers ask again.
    assert!(changes.has_changed().unwrap());
    assert_eq!(cache.ask(KIND, "used"), host("used"));
    assert_eq!(cache.sweep(), 1);
    let wishes = cache.take_wishes();
    assert_eq!(wishes.unsubscribe[&KIND], ["unused".into()]);
    assert!(wishes.subscribe.is_empty());
    assert_eq!(cache.peek(KIND, "unused"), None);
    assert_eq!(cache.peek(KIND, "used"), Some(host("used")));
    assert_eq!(cache.peek(KIND, "pinned"), Some(host("pinned")));
}

#[test]
fn absent_names_make_room_and_a_full_cache_never_says_absent() {
    let cache = Cache::new(Limits {
        names: 2,
        idle_sweeps: 3,
    });
    cache.ask(KIND, "good");
    cache.ask(KIND, "junk");
    apply(&cache, "good", host("good"));
    apply(&cache, "junk", Answer::Absent);
    let mut changes = cache.changes();
    assert_eq!(cache.ask(KIND, "next"), Answer::Requested);
    // Readers that hold "absent" for the evicted name ask again.
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(cache.len(KIND), 2);
    assert_eq!(cache.take_wishes().unsubscribe[&KIND], ["junk".into()]);
    assert_eq!(cache.ask(KIND, "one more"), Answer::Requested);
    assert_eq!(cache.overflows(), 1);
    assert_eq!((cache.len(KIND), cache.peek(KIND, "one more")), (2, None));
    assert!(cache.take_wishes().is_empty());
    assert!(!changes.has_changed().unwrap());
    assert_eq!(cache.ask(KIND, "good"), host("good"));
    // Other kinds have room of their own.
    assert_eq!(cache.ask(Kind::Cluster, "c"), Answer::Requested);
}

#[test]
fn a_wish_that_is_given_up_before_it_was_sent_is_not_sent() {
    let cache = Cache::new(Limits {
        names: 10,
        idle_sweeps: 0,
    });
    cache.ask(KIND, "a");
    assert_eq!(cache.sweep(), 1);
    let wishes = cache.take_wishes();
    assert!(wishes.subscribe[&KIND].is_empty());
    cache.ask(KIND, "a");
    assert_eq!(cache.take_wishes().subscribe[&KIND], ["a".into()]);
}

#[test]
fn answers_nobody_asked_for_come_from_a_wildcard_and_leave_with_it() {
    let cache = Cache::default();
    cache.want_all(Kind::Listener);
    assert_eq!(cache.take_wishes().all, [Kind::Listener]);
    let listener = Resource::closed(Kind::Listener, "0.0.0.0_8080", "").unwrap();
    cache.apply([(
        Kind::Listener,
        Arc::from("0.0.0.0_8080"),
        Answer::Present(listener.clone()),
    )]);
    cache.apply([(Kind::Listener, Arc::from("never seen"), Answer::Absent)]);
    assert_eq!(cache.all(Kind::Listener), [listener]);
    assert_eq!((0..10).map(|_| cache.sweep()).sum::<usize>(), 0);
    cache.remove(Kind::Listener, "0.0.0.0_8080");
    assert_eq!(cache.all(Kind::Listener), []);
}

#[tokio::test]
async fn waiting_ends_with_the_answer() {
    let cache = Arc::new(Cache::default());
    let waiting = tokio::spawn({
        let cache = Arc::clone(&cache);
        async move { cache.answered(KIND, "a").await }
    });
    cache.wished().await;
    apply(&cache, "other", host("other"));
    apply(&cache, "a", host("a"));
    assert_eq!(waiting.await.unwrap(), host("a"));
}
