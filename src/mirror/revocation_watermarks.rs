//! Which of the keys of an owner were ended at once, by rules instead of one by one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use crate::domain::event::Revision;
use crate::domain::ids::{EnvironmentName, ProjectId};

/// The rules by which keys of one owner were watermarks: all that were issued before a revision, and those of an environment or of a
/// project that were issued before a later one. Only ever more. Nearly all owners have the first kind alone, or none.
#[derive(Default)]
pub(super) struct RevocationWatermarks {
    all_before: AtomicU64,
    narrower: ArcSwapOption<Narrower>,
}

#[derive(Clone, Default)]
struct Narrower {
    of_environments: OfEnvironments,
    of_projects: HashMap<ProjectId, OfEnvironments>,
}

/// Before which revision keys of each environment were ended; of none, in all of them. There are few.
#[derive(Clone, Default)]
struct OfEnvironments(Vec<(Option<EnvironmentName>, Revision)>);

impl RevocationWatermarks {
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
        let mut narrower = self.narrower.load().as_deref().cloned().unwrap_or_default();
        match project {
            Some(project) => narrower.of_projects.entry(project.clone()).or_default(),
            None => &mut narrower.of_environments,
        }
        .add(environment, before);
        self.narrower.store(Some(Arc::new(narrower)));
    }

    /// Whether a key of the owner was ended that was issued at this revision and is bound so.
    pub(super) fn includes(
        &self,
        created: Revision,
        project: Option<&ProjectId>,
        environment: &EnvironmentName,
    ) -> bool {
        if created.as_u64() < self.all_before.load(Ordering::Acquire) {
            return true;
        }
        let narrower = self.narrower.load();
        let Some(narrower) = narrower.as_deref() else {
            return false;
        };
        let of_project = project.and_then(|project| narrower.of_projects.get(project));
        [Some(&narrower.of_environments), of_project]
            .into_iter()
            .flatten()
            .any(|rules| rules.include(created, environment))
    }
}

impl OfEnvironments {
    fn add(&mut self, environment: Option<&EnvironmentName>, before: Revision) {
        let mut known = self.0.iter_mut();
        match known.find(|(meant, _)| meant.as_ref() == environment) {
            Some((_, known)) => *known = before.max(*known),
            None => self.0.push((environment.cloned(), before)),
        }
    }

    fn include(&self, created: Revision, environment: &EnvironmentName) -> bool {
        let meant =
            |name: &Option<EnvironmentName>| name.as_ref().is_none_or(|name| name == environment);
        self.0
            .iter()
            .any(|(name, before)| created < *before && meant(name))
    }
}
