// N1

use super::*;

fn recorded() -> Value {
    serde_json::from_str(include_str!("../../recorded/table.json")).unwrap()
}

fn created(object: &Value) -> i64 {
    row::seconds(object["metadata"]["creationTimestamp"].as_str().unwrap()).unwrap()
}

#[test]
fn rows_of_built_in_kinds_are_the_servers() {
    for case in recorded()["built in"].as_array().unwrap() {
        let (group, resource) = (case["group"].as_str().unwrap(), case["resource"].as_str().unwrap());
        let columns = Columns::of(group, resource);
        // Recorded at once after the object was made.
        let cells = columns.cells(&case["object"], created(&case["object"]));
        assert_eq!(
            Value::Array(cells.clone()),
            case["cells"],
            "{group}/{resource}: {}",
            case["object"]
        );
        assert_eq!(
            columns.definitions().as_array().unwrap().len(),
            cells.len(),
            "{group}/{resource}"
        );
    }
}

#[test]
fn columns_of_custom_resources_are_the_servers() {
    for case in recorded()["custom"].as_array().unwrap() {
        let columns = Columns::of_crd(Some(&case["columns"]));
        assert_eq!(columns.definitions(), case["definitions"]);
        for row in case["rows"].as_array().unwrap() {
            let cells = columns.cells(&row["object"], created(&row["object"]));
            assert_eq!(Value::Array(cells), row["cells"], "{}", row["object"]);
        }
    }
}

#[test]
fn ages_lose_precision_as_they_grow() {
    const HOUR: i64 = 3600;
    let cases = [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (303, "5m3s"),
        (600, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (3 * HOUR + 60, "3h1m"),
        (8 * HOUR, "8h"),
        (47 * HOUR, "47h"),
        (49 * HOUR, "2d1h"),
        (72 * HOUR, "3d"),
        (8 * 24 * HOUR + 5 * HOUR, "8d"),
        (400 * 24 * HOUR, "400d"),
        (730 * 24 * HOUR, "2y"),
        (800 * 24 * HOUR, "2y70d"),
        (9 * 365 * 24 * HOUR + HOUR, "9y"),
    ];
    for (seconds, expected) in cases {
        assert_eq!(age(seconds), expected, "{seconds}");
    }
}

#[test]
fn a_pod_that_is_deleted_is_terminating_until_it_has_ended() {
    let columns = Columns::of("", "pods");
    let mut pod =
        json!({"metadata": {"name": "p", "deletionTimestamp": "2030-01-01T00:00:00Z"}, "status": {"phase": "Running"}});
    assert_eq!(columns.cells(&pod, 0)[2], "Terminating");
    pod["status"]["phase"] = "Succeeded".into();
    assert_eq!(columns.cells(&pod, 0)[2], "Succeeded");
    assert_eq!(columns.cells(&pod, 0)[4], "<unknown>");
}
