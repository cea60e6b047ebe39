//! Tables: what `kubectl get` prints.
//!
//! In: objects and the printer columns of their kind. Out: `columnDefinitions` and the cells of each row of a `meta.k8s.io/v1`
//! Table. Never: a clock (ages are counted from the time given), I/O.

use serde_json::Value;

/// The columns of a kind.
#[derive(Debug, Clone)]
pub struct Columns {}

impl Columns {
    /// Those of a built-in resource, or name and age where Kubernetes has none of its own.
    pub fn of(group: &str, resource: &str) -> Columns {
        let _ = (group, resource);
        todo!()
    }

    /// Those of a custom resource version: `additionalPrinterColumns` or, without, the age.
    pub fn of_crd(additional: Option<&Value>) -> Columns {
        let _ = additional;
        todo!()
    }

    /// `columnDefinitions`.
    pub fn definitions(&self) -> Value {
        todo!()
    }

    /// The cells of one object; `now` in seconds since the epoch.
    pub fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let _ = (object, now);
        todo!()
    }
}

/// An age as `kubectl` shows it: `5m3s`, `2d1h`.
pub fn age(seconds: i64) -> String {
    let _ = seconds;
    todo!()
}
