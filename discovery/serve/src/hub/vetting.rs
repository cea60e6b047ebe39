//! Who is at fault when an Envoy refuses a route configuration, and what the others get until that is repaired.
//!
//! One virtual service's routes that Envoy does not take would keep it from taking any other's. So routes that no proxy ever
//! accepted are suspects when the whole is refused; Envoy's message may narrow them down. A single suspect is guilty: its
//! routes are left out, for all of the refusing proxy's [`Audience`](super::audience::Audience), until the virtual service changes. In their place stands what the proxy accepted of them
//! last, or an answer 503. Several suspects are all left out, then let in again by and by (a trial), until what makes the
//! proxy refuse is found: it takes about twice the logarithm of their number, for each one guilty.
//!
//! In: what Envoys accept and refuse. Out: which tables must be made anew, and who is guilty. Never: waits, or knows streams
//! but by their number.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use mizzen_model::ObjectKey;
use mizzen_translate::vet::{self, Part};
use mizzen_xds::{Resource, StreamId, Version};

use crate::watch::Refused;

/// Parts remembered as accepted. Forgetting them makes more suspects, nothing else.
const VOUCHED: usize = 65_536;
/// Parts left out at a time.
const BLOCKED: usize = 4_096;
/// A trial that hears no more from proxies ends: who is innocent must not wait.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Vetting {
    vouched: HashSet<u64>,
    /// Tables whose parts are vouched for already.
    looked_at: HashSet<(Arc<str>, Version)>,
    blocked: BTreeMap<u64, Blocked>,
    trial: Option<Trial>,
    /// Of whom it is known already: the first to be suspected, so that after a restart nobody else is.
    pub(super) known: Refused,
}

/// Routes that are left out.
struct Blocked {
    object: ObjectKey,
    /// What stands in for them.
    instead: Option<Part>,
    /// The table in which they were refused.
    table: Arc<str>,
    guilty: bool,
}

struct Trial {
    stream: StreamId,
    began: Instant,
    /// To be let in again.
    waiting: VecDeque<u64>,
    /// Let in; no proxy has said anything yet.
    released: Vec<(u64, ObjectKey)>,
    /// How many are let in at a time.
    step: usize,
    message: String,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Route configurations to make anew.
    pub(crate) tables: BTreeSet<Arc<str>>,
    /// Whose routes are left out from now on, and what to tell.
    pub(crate) guilty: Vec<(ObjectKey, String)>,
    /// Whose routes are tried again.
    pub(crate) cleared: BTreeSet<ObjectKey>,
    /// Whether the refusal is accounted for: by what was done about it, or before.
    pub(crate) explained: bool,
}

impl Vetting {
    pub(super) fn knowing(known: Refused) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }

    /// The table without what is left out; nothing if it has none of that.
    pub(crate) fn vet(&self, table: &[u8]) -> Option<Vec<u8>> {
        if self.blocked.is_empty() {
            return None;
        }
        vet::without(table, |id| self.blocked.get(&id).map(|blocked| blocked.instead.clone()))
    }

    /// An Envoy accepted a table.
    pub(crate) fn accepted(&mut self, table: &Resource) -> Verdict {
        if self.looked_at.len() >= VOUCHED || self.vouched.len() >= VOUCHED {
            self.looked_at.clear();
            self.vouched.clear();
        }
        if self.looked_at.insert((table.name().clone(), table.version())) {
            self.vouched
                .extend(vet::parts(&table.body()).iter().map(|part| part.id));
        }
        let mut verdict = Verdict::default();
        self.go_on(&mut verdict);
        verdict
    }

    /// Lets more in, if all that was let in before is settled.
    fn go_on(&mut self, verdict: &mut Verdict) {
        let Some(trial) = &mut self.trial else { return };
        let let_in = !trial.released.is_empty();
        trial.released.retain(|(id, _)| !self.vouched.contains(id));
        if !trial.released.is_empty() {
            return;
        }
        if let_in {
            trial.step = trial.step.saturating_mul(2);
        }
        while trial.released.is_empty()
            && let Some(id) = trial.waiting.pop_front()
        {
            let rest = trial.waiting.len().min(trial.step.saturating_sub(1));
            for id in std::iter::once(id).chain(trial.waiting.drain(..rest)) {
                if let Some(blocked) = self.blocked.remove(&id) {
                    verdict.tables.insert(blocked.table);
                    trial.released.push((id, blocked.object));
                }
            }
        }
        if trial.released.is_empty() {
            self.trial = None;
        }
    }

    /// An Envoy refused a table. `accepted` is what it accepted of it last.
    pub(crate) fn refused(
        &mut self,
        stream: StreamId,
        table: &Resource,
        message: &str,
        accepted: Option<&Resource>,
        now: Instant,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        let body = table.body();
        let all = vet::parts(&body);
        let mut suspects = vet::suspects(&body, message, |id| self.vouched.contains(&id));
        // It may speak of what was left out meanwhile.
        verdict.explained = suspects.iter().any(|part| self.blocked.contains_key(&part.id));
        suspects.retain(|part| !self.blocked.contains_key(&part.id));
        if let Some(trial) = &self.trial {
            // Only what was let in can be new to it.
            let released: Vec<_> = suspects
                .iter()
                .filter(|part| trial.released.iter().any(|(id, _)| *id == part.id))
                .cloned()
                .collect();
            if !released.is_empty() {
                suspects = released;
            }
        }
        let known = self.known.lock();
        if suspects.iter().any(|part| known.contains(&part.object)) {
            suspects.retain(|part| known.contains(&part.object));
        }
        drop(known);
        if suspects.is_empty() || self.blocked.len() + suspects.len() > BLOCKED || all.is_empty() {
            return verdict;
        }
        verdict.explained = true;
        verdict.tables.insert(table.name().clone());
        let guilty = suspects.len() == 1;
        for part in &suspects {
            let instead = accepted.and_then(|accepted| vet::counterpart(&accepted.body(), part));
            if guilty {
                let kept = if instead.is_some() {
                    "the routes that it had stay in force"
                } else {
                    "its requests are answered with 503"
                };
                let told = format!(
                    "a proxy refuses the routes ({}): {kept}, and other VirtualServices are not touched",
                    message.trim()
                );
                verdict.guilty.push((part.object.clone(), told));
            }
            let blocked = Blocked {
                object: part.object.clone(),
                instead,
                table: table.name().clone(),
                guilty,
            };
            self.blocked.insert(part.id, blocked);
        }
        let ids = suspects.iter().map(|part| part.id);
        match &mut self.trial {
            Some(trial) => {
                trial.released.retain(|(id, _)| !self.blocked.contains_key(id));
                if !guilty {
                    // What was let in beside them comes again later, in smaller portions.
                    ids.rev().for_each(|id| trial.waiting.push_front(id));
                    trial.step = (suspects.len() / 2).max(1);
                }
            }
            None if !guilty => {
                self.trial = Some(Trial {
                    stream,
                    began: now,
                    waiting: ids.collect(),
                    released: Vec::new(),
                    step: (suspects.len() / 2).max(1),
                    message: message.to_owned(),
                });
            }
            None => {}
        }
        verdict
    }

    /// Virtual services changed; a delegate's change may repair whoever delegates to it.
    pub(crate) fn changed(&mut self, keys: &BTreeSet<&ObjectKey>, delegates: bool) -> Verdict {
        let mut verdict = Verdict::default();
        self.known.lock().retain(|object| !keys.contains(object));
        self.blocked.retain(|_, blocked| {
            let keep = !(keys.contains(&blocked.object) || (delegates && blocked.guilty));
            if !keep {
                verdict.tables.insert(blocked.table.clone());
                if blocked.guilty {
                    verdict.cleared.insert(blocked.object.clone());
                }
            }
            keep
        });
        if let Some(trial) = &mut self.trial {
            trial.waiting.retain(|id| self.blocked.contains_key(id));
            // Nobody will accept what is no longer sent.
            trial.released.retain(|(_, object)| !keys.contains(object));
        }
        self.go_on(&mut verdict);
        verdict
    }

    /// A stream ended: what was on trial there is let in, and whoever still refuses it says so.
    pub(crate) fn ended(&mut self, stream: StreamId) -> Verdict {
        if self.trial.as_ref().is_some_and(|trial| trial.stream == stream) {
            self.let_all_in()
        } else {
            Verdict::default()
        }
    }

    /// Ends a trial from which nothing more is heard.
    pub(crate) fn sweep(&mut self, now: Instant) -> Verdict {
        let late = |trial: &Trial| now.saturating_duration_since(trial.began) > PATIENCE;
        if self.trial.as_ref().is_some_and(late) {
            self.let_all_in()
        } else {
            Verdict::default()
        }
    }

    fn let_all_in(&mut self) -> Verdict {
        let mut verdict = Verdict::default();
        if let Some(trial) = self.trial.take() {
            tracing::warn!(
                waiting = trial.waiting.len(),
                error = trial.message,
                "it was not found out which routes proxies refuse"
            );
            for id in trial.waiting {
                verdict
                    .tables
                    .extend(self.blocked.remove(&id).map(|blocked| blocked.table));
            }
        }
        verdict
    }
}

#[cfg(test)]
pub(super) mod tests;
