//! The columns of tables of keys.

use super::key::{owner, short_hint, state, tone};
use crate::cli::listing::{Field, Listing};
use crate::cli::table::{Cell, Column};
use crate::cli::text;
use crate::cli::when::Times;
use crate::pb::claviger::v1::{Key, KeyState};

const REALM: Field<Key> = Field::new(Column::id("REALM", 55, 6, 14), |key, _| {
    Cell::new(&key.realm)
});
const ID: Field<Key> = Field::whole("ID", |key, _| Cell::dim(&key.id));
const NAME: Field<Key> = Field::new(Column::text("NAME", 60, 10, 20), |key, _| {
    Cell::new(&key.name)
});
const OWNER: Field<Key> = Field::screen(Column::id("OWNER", 50, 8, 14), |key, _| {
    Cell::new(owner(key))
});
const PARTNER: Field<Key> = Field::whole("PARTNER", |key, _| Cell::new(&key.partner));
const PROJECT: Field<Key> = Field::whole("PROJECT", |key, _| Cell::new(&key.project));
const ENV: Field<Key> = Field::whole("ENV", |key, _| Cell::new(&key.environment));
/// What commands and people call a key by, so it stays longest.
const KEY: Field<Key> = Field::screen(Column::id("KEY", 100, 10, 20), |key, _| {
    Cell::new(short_hint(&key.hint))
});
const HINT: Field<Key> = Field::whole("HINT", |key, _| Cell::new(&key.hint));
const STATE: Field<Key> = Field::new(Column::whole("STATE", 90), |key, _| {
    Cell::toned(state(key), tone(key))
});
const EXPIRES: Field<Key> = Field::new(Column::whole("EXPIRES", 40), expires);
const LAST_USED: Field<Key> = Field::new(Column::whole("LAST USED", 80), |key, times| {
    times.past(key.last_used_time.as_ref(), "never")
});

const CREATED: Field<Key> = Field::asked(Column::whole("CREATED", 30), |key, times| {
    times.past(key.create_time.as_ref(), "")
});
const SCOPES: Field<Key> = Field::asked(Column::text("SCOPES", 45, 10, 20), |key, _| {
    Cell::new(text::granted(&key.scopes, key.full_access))
});
const EXTERNAL_ID: Field<Key> = Field::asked(Column::id("EXTERNAL ID", 55, 10, 20), |key, _| {
    Cell::new(&key.external_id)
});

/// The columns of `keys list` for several realms.
pub(super) const OF_REALMS: [Field<Key>; 15] = of_keys(REALM);

/// The columns of `keys list` for one realm.
const OF_REALM: [Field<Key>; 15] =
    of_keys(Field::asked(Column::id("REALM", 55, 6, 14), |key, _| {
        Cell::new(&key.realm)
    }));

const fn of_keys(realm: Field<Key>) -> [Field<Key>; 15] {
    [
        realm,
        ID,
        NAME,
        OWNER,
        PARTNER,
        PROJECT,
        ENV,
        KEY,
        HINT,
        EXTERNAL_ID,
        SCOPES,
        STATE,
        CREATED,
        EXPIRES,
        LAST_USED,
    ]
}

/// The columns of the keys that a command would end.
const ENDED: [Field<Key>; 9] = [ID, NAME, OWNER, PARTNER, PROJECT, ENV, KEY, HINT, LAST_USED];

/// The columns of `keys find`.
const FOUND: [Field<Key>; 8] = [ID, NAME, REALM, OWNER, PARTNER, KEY, HINT, STATE];

/// The expiry of a key. On a terminal, that of a revoked key does not matter any more.
fn expires(key: &Key, times: Times) -> Cell {
    match times {
        Times::Relative(_) if key.state() == KeyState::Revoked => Cell::dim(""),
        _ => times.expiry(key.expire_time.as_ref()),
    }
}

/// How keys of a realm are listed; without one, those of several.
pub(in crate::cli) fn listing(realm: Option<&str>) -> Listing<'static, Key> {
    Listing {
        fields: if realm.is_some() {
            &OF_REALM
        } else {
            &OF_REALMS
        },
        place: realm.map_or_else(|| "all realms".to_owned(), |realm| format!("realm {realm}")),
        nouns: ["key", "keys"],
        order: "newest first",
        empty: "There are no such keys.",
        identity: |key| key.id.clone(),
        note: |_| String::new(),
        footer: "",
    }
}

/// How the keys are shown that a command would end.
pub(in crate::cli) fn ended() -> Listing<'static, Key> {
    Listing {
        fields: &ENDED,
        ..listing(None)
    }
}

/// How keys are shown that were found in any realm.
pub(in crate::cli) fn found() -> Listing<'static, Key> {
    Listing {
        fields: &FOUND,
        ..listing(None)
    }
}
