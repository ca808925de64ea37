//! An event as a person reads it: names in place of ids, and the details that matter as a sentence.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::Timestamp;

use super::keys::short_hint;
use super::listing::{Field, Listing};
use super::table::{Cell, Column};
use super::text;
use super::when;
use crate::domain::event::{EventKind, SUSPENSION, SoughtKind};
use crate::pb::claviger::v1::{Event, Key};

/// The number of characters of an id that tell it from others: its end, because ids of one hour begin alike.
const END_OF_ID: usize = 8;

/// Details that are in the row already, or that only programs need.
const UNSAID: [&str; 6] = [
    "name",
    "hint",
    "project",
    "request_id",
    "definition_sha256",
    "level",
];

/// An event and how it is shown.
#[derive(Debug)]
pub(super) struct EventLine {
    event: Event,
    when: String,
    which: String,
    by: String,
    note: String,
}

/// The columns of the audit trail.
pub(super) const FIELDS: [Field<EventLine>; 13] = [
    Field::whole("REVISION", |line, _| {
        Cell::new(line.event.revision.to_string())
    }),
    Field::whole("TIME", |line, _| {
        Cell::new(text::time_if_any(line.event.time.as_ref()))
    }),
    Field::screen(Column::whole("WHEN (UTC)", 90), |line, _| {
        Cell::dim(&line.when)
    }),
    Field::screen(Column::whole("WHAT", 100), |line, _| {
        Cell::new(kind(&line.event))
    }),
    Field::screen(Column::id("WHICH", 95, 16, 30), |line, _| {
        Cell::new(&line.which)
    }),
    Field::screen(Column::text("BY", 80, 8, 20), |line, _| Cell::new(&line.by)),
    Field::whole("KIND", |line, _| Cell::new(&line.event.kind)),
    Field::whole("REALM", |line, _| Cell::new(&line.event.realm)),
    Field::whole("PARTNER", |line, _| Cell::new(&line.event.partner)),
    Field::whole("KEY", |line, _| Cell::dim(&line.event.key_id)),
    Field::whole("ACTOR", |line, _| Cell::dim(&line.event.actor)),
    Field::whole("PEER", |line, _| Cell::new(&line.event.peer)),
    Field::whole("DETAIL", |line, _| {
        Cell::new(text::pairs(&line.event.detail))
    }),
];

/// How the events of a realm are listed; without one, those of all.
pub(super) fn listing(realm: &str) -> Listing<'static, EventLine> {
    Listing {
        fields: &FIELDS,
        place: if realm.is_empty() {
            "all realms".to_owned()
        } else {
            format!("realm {realm}")
        },
        nouns: ["event", "events"],
        order: "newest first",
        empty: "There are no such events.",
        identity: |line| format!("revision {}", line.event.revision),
        note: |line| line.note.clone(),
        footer: "--wide: with the revision, the ids, the address and all details.",
    }
}

/// What is known of keys besides their ids.
#[derive(Debug, Default)]
pub(super) struct Names {
    keys: BTreeMap<String, Named>,
}

#[derive(Debug, Default)]
struct Named {
    /// Empty if the key has none; `None` if it is not known.
    name: Option<String>,
    hint: Option<String>,
}

impl Names {
    /// The names that the events tell. Events are newest first, and so the latest name counts.
    pub(super) fn of(events: &[Event]) -> Self {
        let mut known = Self::default();
        for event in events.iter().filter(|event| !event.key_id.is_empty()) {
            let named = known.keys.entry(event.key_id.clone()).or_default();
            let kind = EventKind::parse(&event.kind);
            // These tell the whole key, the others only what they changed.
            let is_whole = matches!(
                kind,
                Some(
                    EventKind::AuthorityCreated
                        | EventKind::KeyIssued
                        | EventKind::KeyImported
                        | EventKind::KeyDeleted
                )
            );
            let name = event.detail.get("name").cloned();
            let name = name.or_else(|| is_whole.then(String::new));
            named.name = named.name.take().or(name);
            let hint = event.detail.get("hint").cloned();
            named.hint = named.hint.take().or(hint);
        }
        known
    }

    /// Adds a key that was looked up. It has its present name.
    pub(super) fn add(&mut self, key: Key) {
        let named = self.keys.entry(key.id).or_default();
        named.name = Some(key.name);
        named.hint = named.hint.take().or(Some(key.hint));
    }

    /// Whether this is the id of a key that has no name here.
    pub(super) fn lacks_key(&self, key: &str) -> bool {
        let named = self.keys.get(key);
        !key.is_empty() && named.is_none_or(|named| named.name.is_none())
    }

    /// The keys with which the events were made and of which nothing is known.
    pub(super) fn unknown_actors(&self, events: &[Event]) -> BTreeSet<String> {
        let actors = events.iter().map(|event| &event.actor);
        actors
            .filter(|actor| !actor.is_empty() && self.name(actor).is_none())
            .cloned()
            .collect()
    }

    /// The name of a key, or else its hint.
    fn name(&self, id: &str) -> Option<String> {
        let Named { name, hint } = self.keys.get(id)?;
        match (name.as_deref(), hint) {
            (Some(""), Some(hint)) => Some(short_hint(hint)),
            (None | Some(""), _) => None,
            (Some(name), _) => Some(name.to_owned()),
        }
    }

    /// A key and its owner.
    fn title(&self, event: &Event) -> String {
        let owner = owner(event);
        let named = self.keys.get(&event.key_id);
        let hint = named.and_then(|named| named.hint.as_deref());
        let name = match named.and_then(|named| named.name.as_deref()) {
            Some("") => "-".to_owned(),
            Some(name) => name.to_owned(),
            // The end of the id, which `--wide` shows whole.
            None if hint.is_none() => short_id(&event.key_id),
            None => "key".to_owned(),
        };
        let facts: Vec<_> = [owner, hint.map(short_hint).unwrap_or_default()]
            .into_iter()
            .filter(|fact| !fact.is_empty())
            .collect();
        if facts.is_empty() {
            name
        } else {
            format!("{name} ({})", facts.join(", "))
        }
    }

    /// The key that made a change.
    fn by(&self, event: &Event) -> String {
        match event.actor.as_str() {
            "" => "the command line".to_owned(),
            actor => self.name(actor).unwrap_or_else(|| short_id(actor)),
        }
    }
}

/// The lines of a page of events. `is_one_realm`: all are of the same, so that it need not stand in each line.
pub(super) fn lines(
    events: &[Event],
    names: &Names,
    is_one_realm: bool,
    now: &Timestamp,
) -> Vec<EventLine> {
    let times = || events.iter().filter_map(|event| event.time.as_ref());
    let is_today = times().all(|time| when::is_same_day(time, now));
    let line = |event: &Event| EventLine {
        when: match &event.time {
            Some(time) if is_today => when::time_of_day(time),
            Some(time) => when::second(time, now),
            None => String::new(),
        },
        which: which(event, names, is_one_realm),
        by: names.by(event),
        note: note(event, now),
        event: event.clone(),
    };
    events.iter().map(line).collect()
}

/// The kind of an event as `--kind` takes it, which is narrower than the kind in the message.
pub(super) fn kind(event: &Event) -> &str {
    let suspension = event.detail.get(SUSPENSION).map(String::as_str);
    SoughtKind::narrowest(&event.kind, suspension)
}

fn owner(event: &Event) -> String {
    match event.detail.get("project") {
        Some(project) if !event.partner.is_empty() => format!("{}/{project}", event.partner),
        _ => event.partner.clone(),
    }
}

fn which(event: &Event, names: &Names, is_one_realm: bool) -> String {
    let owner = owner(event);
    let what = if !event.key_id.is_empty() {
        names.title(event)
    } else if owner.is_empty() {
        return event.realm.clone();
    } else {
        owner
    };
    if is_one_realm {
        what
    } else {
        format!("{}: {what}", event.realm)
    }
}

fn short_id(id: &str) -> String {
    let start = id.len().saturating_sub(END_OF_ID);
    format!("key …{}", id.get(start..).unwrap_or(id))
}

/// The details of an event as a sentence.
fn note(event: &Event, now: &Timestamp) -> String {
    let detail = |name: &str| event.detail.get(name).map(String::as_str);
    let time = |name: &str| detail(name)?.parse::<Timestamp>().ok();
    let parts = match EventKind::parse(&event.kind) {
        Some(EventKind::AuthorityCreated | EventKind::KeyIssued | EventKind::KeyImported) => {
            let may = match (detail("full_access"), detail("scopes")) {
                (Some(_), _) => "full access".to_owned(),
                (None, Some(scopes)) => format!("may {}", scopes.replace(' ', ", ")),
                (None, None) => "no scope".to_owned(),
            };
            let end = time("expire_time").map_or_else(
                || "never expires".to_owned(),
                |end| format!("expires {}", when::minute(&end, now)),
            );
            let from = detail("allowed_cidrs").map(|ranges| format!("from {ranges}"));
            let external = detail("external_id").map(|id| format!("external id {id}"));
            [Some(may), Some(end), from, external]
                .into_iter()
                .flatten()
                .collect()
        }
        Some(EventKind::KeyRotated) => {
            let old = detail("old_hint").map(|hint| {
                let end = hint.split_once('…').map_or(hint, |(_, end)| end);
                format!(" (…{end})")
            });
            let old = old.unwrap_or_default();
            let has_ended = |end: &Timestamp| {
                event
                    .time
                    .as_ref()
                    .is_some_and(|at| end.seconds <= at.seconds)
            };
            vec![match time("old_expire_time") {
                Some(end) if has_ended(&end) => format!("the old secret{old} ended at once"),
                Some(end) => {
                    format!(
                        "the old secret{old} works until {}",
                        when::minute(&end, now)
                    )
                }
                None => format!("the old secret{old} works until the key expires"),
            }]
        }
        Some(EventKind::PartnerPut) => {
            // What the change did stands in its kind. A change by an earlier version does not say what it did.
            let is_suspended = detail(SUSPENSION).is_none() && detail("suspended") == Some("true");
            let state = is_suspended.then(|| "suspended".to_owned());
            let name = detail("display_name").map(|name| format!("display name {name}"));
            [state, name].into_iter().flatten().collect()
        }
        _ => {
            let details = event.detail.iter();
            let details = details.filter(|(name, _)| !UNSAID.contains(&name.as_str()));
            details
                .map(|(name, value)| format!("{}: {value}", name.replace('_', " ")))
                .collect::<Vec<_>>()
        }
    };
    parts.join("; ")
}
