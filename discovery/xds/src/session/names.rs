//! The resources that a stream was sent by name: one pointer each, sorted, so that thousands of streams stay small.

use std::sync::Arc;

use crate::resource::Resource;

#[derive(Default)]
pub(crate) struct Names(Vec<Arc<Resource>>);

impl Names {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.0.iter()
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Resource>> {
        self.0.get(self.position(name).ok()?)
    }

    pub(crate) fn set(&mut self, resource: Arc<Resource>) {
        match self.position(resource.name()) {
            Ok(at) => {
                if let Some(slot) = self.0.get_mut(at) {
                    *slot = resource;
                }
            }
            Err(at) => self.0.insert(at, resource),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Arc<Resource>> {
        let at = self.position(name).ok()?;
        let resource = self.0.remove(at);
        if self.0.len() * 4 < self.0.capacity() {
            self.0.shrink_to(self.0.len() * 2);
        }
        Some(resource)
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|resource| (**resource.name()).cmp(name))
    }
}
