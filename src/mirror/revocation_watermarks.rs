//! Watermarks of bulk revocations: which keys of a partner were revoked by a rule instead of individually.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use crate::domain::event::Revision;
use crate::domain::ids::{EnvironmentName, ProjectId};

/// The watermarks of one partner: the revision before which all its keys are revoked, and later revisions before which the keys
/// of an environment or of a project are revoked. Watermarks only rise. Nearly all partners have the first kind alone, or none.
#[derive(Default)]
pub(super) struct RevocationWatermarks {
    all_before: AtomicU64,
    narrower: ArcSwapOption<NarrowWatermarks>,
}

/// The watermarks that apply to an environment or a project of the partner.
#[derive(Clone, Default)]
struct NarrowWatermarks {
    of_environments: EnvironmentWatermarks,
    of_projects: HashMap<ProjectId, EnvironmentWatermarks>,
}

/// The revision before which the keys of each environment are revoked; `None` stands for all environments. A list, because a
/// realm has few environments.
#[derive(Clone, Default)]
struct EnvironmentWatermarks(Vec<(Option<EnvironmentName>, Revision)>);

impl RevocationWatermarks {
    /// Revokes the keys that were issued before this revision, only those of the project and the environment if they are given.
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
        // Only the feed calls this method, so no other thread can have added a watermark meanwhile.
        let mut narrower = self.narrower.load().as_deref().cloned().unwrap_or_default();
        match project {
            Some(project) => narrower.of_projects.entry(project.clone()).or_default(),
            None => &mut narrower.of_environments,
        }
        .add(environment, before);
        self.narrower.store(Some(Arc::new(narrower)));
    }

    /// Whether a key of the partner is revoked that was issued at this revision, in this project and environment.
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
            .any(|watermarks| watermarks.include(created, environment))
    }
}

impl EnvironmentWatermarks {
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
