//! What a stream knows of its proxy, for `/debug/syncz`.

use std::sync::Arc;

use super::{Known, Nonce, Session, Subscription};
use crate::resource::ResourceType;

/// How far a proxy is with one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncState {
    /// Nothing was sent: nothing of this kind exists for the proxy, or nothing was asked for.
    NotSent,
    /// It has acknowledged all that there is.
    Synced,
    /// Something is on its way.
    Pending,
    /// It rejected something and keeps what it had.
    Rejected,
}

impl SyncState {
    /// The word that tools show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "NOT SENT",
            Self::Synced => "SYNCED",
            Self::Pending => "STALE",
            Self::Rejected => "REJECTED",
        }
    }
}

/// One kind of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeStatus {
    /// The kind.
    pub kind: ResourceType,
    /// Whether all of this kind are subscribed to.
    pub wildcard: bool,
    /// Names subscribed to by name.
    pub subscribed: usize,
    /// Resources that the proxy has been sent and that exist.
    pub resources: usize,
    /// Names told to be absent.
    pub absent: usize,
    /// The last response sent.
    pub sent: Option<Nonce>,
    /// The last response acknowledged.
    pub acknowledged: Option<Nonce>,
    /// Rejected names with the proxy's message.
    pub rejected: Vec<(Arc<str>, String)>,
    /// The conclusion.
    pub state: SyncState,
}

impl Session {
    /// The state of every kind that the proxy asked for.
    pub fn status(&self) -> Vec<TypeStatus> {
        self.kinds
            .iter()
            .map(|(kind, subscription)| subscription.status(*kind))
            .collect()
    }
}

impl Subscription {
    fn status(&self, kind: ResourceType) -> TypeStatus {
        let present = self.named.iter().filter(|resource| resource.is_present()).count();
        let wild = match self.wildcard.as_ref().map(|wildcard| &wildcard.known) {
            Some(Known::Set(set)) => set
                .iter()
                .filter(|resource| self.named.find(resource.name()).is_none())
                .count(),
            _ => 0,
        };
        let state = if !self.rejected.is_empty() {
            SyncState::Rejected
        } else if !self.in_flight.is_empty() || self.has_work() {
            SyncState::Pending
        } else if self.sent.is_none() {
            SyncState::NotSent
        } else {
            SyncState::Synced
        };
        TypeStatus {
            kind,
            wildcard: self.wildcard.is_some(),
            subscribed: self.names(),
            resources: present + wild,
            absent: self.named.len() - present,
            sent: self.sent,
            acknowledged: self.acknowledged,
            rejected: self
                .rejected
                .iter()
                .map(|(name, (_, message))| (name.clone(), message.clone()))
                .collect(),
            state,
        }
    }
}
