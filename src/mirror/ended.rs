//! Which of the keys of an owner were ended at once, by rules instead of one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use super::index::KeyFacts;
use crate::domain::event::Revision;
use crate::domain::ids::{EnvironmentName, ProjectId};

/// The rules by which keys of one owner were ended: all that were issued before a revision, and those of a project or an
/// environment that were issued before a later one. Only ever more.
#[derive(Default)]
pub(super) struct Ended {
    all_before: AtomicU64,
    parts: ArcSwapOption<Vec<Part>>,
}

/// Some of an owner's keys.
#[derive(Clone)]
struct Part {
    project: Option<ProjectId>,
    environment: Option<EnvironmentName>,
    before: Revision,
}

impl Ended {
    /// Ends those that were issued before this revision, of a project and an environment if they are named.
    pub(super) fn add(
        &self,
        project: Option<&ProjectId>,
        environment: Option<&EnvironmentName>,
        before: Revision,
    ) {
        if project.is_none() && environment.is_none() {
            self.all_before.fetch_max(before.as_u64(), Ordering::AcqRel);
            return;
        }
        // Only the feed adds, so that nobody else can have added meanwhile.
        let mut parts: Vec<Part> = self.parts.load().as_deref().cloned().unwrap_or_default();
        let same = |part: &&mut Part| {
            part.project.as_ref() == project && part.environment.as_ref() == environment
        };
        match parts.iter_mut().find(same) {
            Some(part) => part.before = part.before.max(before),
            None => parts.push(Part {
                project: project.cloned(),
                environment: environment.cloned(),
                before,
            }),
        }
        self.parts.store(Some(Arc::new(parts)));
    }

    /// Whether this key of the owner was ended.
    pub(super) fn includes(&self, key: &KeyFacts) -> bool {
        let created = key.created_revision();
        if created.as_u64() < self.all_before.load(Ordering::Acquire) {
            return true;
        }
        let parts = self.parts.load();
        parts.iter().flat_map(|parts| parts.iter()).any(|part| {
            let Part {
                project,
                environment,
                before,
            } = part;
            created < *before
                && (project.is_none() || *project == key.project)
                && environment
                    .as_ref()
                    .is_none_or(|name| name == key.environment())
        })
    }
}
