//! Creates an authority with many keys directly in a store of either engine.
//!
//! The keys can be verified and have one event each, as if they had been issued. Only their roots differ: an Argon2 hash for each
//! of a million keys would take hours, so all keys share one root.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use claviger::authority::create;
use claviger::domain::access::{Access, Scope};
use claviger::domain::clock::Clock;
use claviger::domain::credential::{CredentialSource, Credentials, HeaderName, Scheme};
use claviger::domain::denial::Denials;
use claviger::domain::event::{Actor, Event, EventKind, Revision, Subject};
use claviger::domain::ids::{EnvironmentName, KeyId, PartnerId, Prefix, RealmId, ScopeName, Tag};
use claviger::domain::key::{Key, Level, LevelKind, Revocation, Secret};
use claviger::domain::key_text::{PlainKey, SecretBytes};
use claviger::domain::partner::Partner;
use claviger::domain::path::PathRules;
use claviger::domain::realm::{Environment, Realm, UnscopedKeys};
use claviger::domain::route::{KeyNeed, Method, Need, PathTemplate, Reach, Route};
use claviger::domain::time::{Expiry, Timestamp};
use claviger::hashing::{Peppers, RootCost, Roots};
use claviger::store::{Change, DatabaseLock, DatabaseUrls, LockMode, Store};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection, SqliteConnection};

/// The number of partners that own the keys.
const PARTNERS: usize = 100;

/// The number of different sets of scopes that the keys are granted.
const SCOPE_SETS: u8 = 16;

/// The number of different values of the label that keys have in common.
const TEAMS: u8 = 100;

const DATABASE_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of keys that one statement inserts.
const BATCH: usize = 10_000;

/// The number of hot keys.
pub(crate) const HOT: usize = 1_000;

/// The number of the realm's routes.
pub(crate) const ROUTES: usize = 500;

/// The database of a new authority.
pub(crate) enum Database {
    /// The file of an SQLite database.
    Sqlite(std::path::PathBuf),
    /// The URL of a PostgreSQL database.
    Postgres(String),
}

/// The API keys of a new authority.
pub(crate) struct Seeded {
    /// The API key of the operator.
    pub(crate) operator_key: String,
    /// The API key of the gateway, which makes the calls.
    pub(crate) gateway_key: String,
    /// The API keys of the realm `demo`.
    pub(crate) plain_keys: Vec<String>,
    /// The API keys of more keys of this realm, which are revoked.
    pub(crate) revoked: Vec<String>,
    /// API keys of keys that do not exist.
    pub(crate) unknown: Vec<String>,
}

/// Creates an authority with this number of keys in its realm `demo` and [`HOT`] revoked keys, and its pepper file.
pub(crate) async fn seed(
    database: &Database,
    pepper_file: &Path,
    keys: usize,
) -> Result<Seeded, Box<dyn Error>> {
    let (store, _lock) = match database {
        Database::Sqlite(file) => (Store::open_sqlite(file).await?, None),
        Database::Postgres(url) => {
            let url = DatabaseUrls::from(url.clone());
            let mut lock = DatabaseLock::take(&url, DATABASE_TIMEOUT, LockMode::Exclusive).await?;
            (Store::open_postgres(&mut lock).await?, Some(lock))
        }
    };
    let peppers = Peppers::create(pepper_file)?;
    let clock = Clock::system();
    let roots = Roots::new(RootCost::default())?;
    let created = create(&store, &clock, &peppers, &roots, |_| Ok(())).await?;
    let operator_key = created.ok_or("the store has an authority")?.plain_key;
    let root = roots.make(Arc::new(SecretBytes::new([0; 32]))).await;

    let realm = demo();
    let mut change = store.change(clock.now()).await?;
    change.put_realm(&realm).await?;
    change
        .put_partner(&partner(RealmId::built_in(), realm.id.as_partner()))
        .await?;
    commit(change, EventKind::RealmPut, subject(&realm.id, None, None)).await?;
    for number in 0..PARTNERS {
        let mut change = store.change(clock.now()).await?;
        let owner = owner(number);
        change
            .put_partner(&partner(realm.id.clone(), owner.clone()))
            .await?;
        commit(
            change,
            EventKind::PartnerPut,
            subject(&realm.id, Some(owner), None),
        )
        .await?;
    }
    let mut change = store.change(clock.now()).await?;
    let first = KeySeed {
        number: u64::MAX,
        time: change.time(),
        revision: change.revision(),
    };
    let (gateway, gateway_key) = first.gateway_key(&peppers);
    change.insert_key(&gateway).await?;
    change
        .insert_root(gateway.id, &gateway.secrets[0], &root)
        .await?;
    let of = subject(
        &gateway.realm,
        Some(gateway.partner.clone()),
        Some(gateway.id),
    );
    commit(change, EventKind::KeyIssued, of).await?;
    store.close().await;

    let mut bulk = BulkInsert::begin(database, root).await?;
    let mut plain_keys = Vec::with_capacity(keys + HOT);
    let make = |number: u64| {
        let nth = number + 1;
        let seed = KeySeed {
            number,
            time: Timestamp::from_micros(first.time.as_micros() + nth as i64),
            revision: Revision::from(first.revision.as_u64() + nth),
        };
        seed.demo_key(&realm, &peppers)
    };
    let numbers: Vec<u64> = (0..(keys + HOT) as u64).collect();
    for batch in numbers.chunks(BATCH) {
        let batch: Vec<Key> = batch
            .iter()
            .map(|&number| {
                let (mut key, plain_key) = make(number);
                if number >= keys as u64 {
                    key.revocation = Some(Revocation {
                        at: key.created_at,
                        reason: "the benchmark measures it".to_owned(),
                    });
                }
                plain_keys.push(plain_key);
                key
            })
            .collect();
        bulk.insert(&batch).await?;
    }
    bulk.commit().await?;
    let next = (keys + HOT) as u64;
    Ok(Seeded {
        operator_key: operator_key.expose().to_owned(),
        gateway_key,
        revoked: plain_keys.split_off(keys),
        plain_keys,
        unknown: (next..next + HOT as u64)
            .map(|number| make(number).1)
            .collect(),
    })
}

/// The values from which a key is derived.
struct KeySeed {
    number: u64,
    time: Timestamp,
    revision: Revision,
}

impl KeySeed {
    /// A key of the realm `demo`, with two granted scopes, which make three effective scopes, a label whose value many keys
    /// have, and a name and a label that no other key has. Partner, scopes and label are independent of one another.
    fn demo_key(&self, realm: &Realm, peppers: &Peppers) -> (Key, String) {
        let number = self.number;
        let [.., scopes, team] = self.random();
        let scopes = [scope_name("write"), module_scope(scopes % SCOPE_SETS)];
        let (mut key, plain_key) =
            self.key(realm, owner(number as usize % PARTNERS), scopes, peppers);
        key.name = format!("integration {number}");
        key.labels = BTreeMap::from([
            ("team".to_owned(), format!("payments-{}", team % TEAMS)),
            ("customer".to_owned(), format!("cus-{number:08}")),
        ]);
        (key, plain_key)
    }

    /// Bytes that look random and depend only on the number.
    fn random(&self) -> [u8; 32] {
        Sha256::digest(self.number.to_be_bytes()).into()
    }

    fn gateway_key(&self, peppers: &Peppers) -> (Key, String) {
        let partner = demo().id.as_partner();
        self.key(&Realm::built_in(), partner, [scope_name("verify")], peppers)
    }

    fn key<const N: usize>(
        &self,
        realm: &Realm,
        partner: PartnerId,
        scopes: [ScopeName; N],
        peppers: &Peppers,
    ) -> (Key, String) {
        let random = self.random();
        let id = KeyId::new(self.time, random.first_chunk().expect("10 of 32 bytes"));
        let secret = SecretBytes::new(Sha256::digest(random).into());
        let environment = &realm.environments[0];
        let plain = PlainKey::new(&realm.prefix, &environment.tag, id, &secret);
        let digest = peppers
            .digest(Peppers::FIRST, id, &secret)
            .expect("the pepper was just created");
        let key = Key {
            id,
            realm: realm.id.clone(),
            partner,
            level: Level::Partner,
            environment: environment.name.clone(),
            name: "gateway".to_owned(),
            external_id: None,
            hint: plain.hint(),
            access: Access::Scopes(BTreeSet::from(scopes)),
            labels: BTreeMap::new(),
            allowed_cidrs: Vec::new(),
            created_at: self.time,
            created_by: None,
            created_revision: self.revision,
            expires_at: Expiry::Never,
            disabled: false,
            withheld: false,
            revocation: None,
            secrets: vec![Secret {
                digest,
                created_at: self.time,
                expires_at: Expiry::Never,
                imported: false,
                hint: String::new(),
                last_use: None,
            }],
            last_use: None,
            revision: Revision::default(),
        };
        (key, plain.expose().to_owned())
    }
}

/// One transaction that inserts keys, their roots and their events, many with each statement.
struct BulkInsert {
    engine: Engine,
    root: String,
}

enum Engine {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl BulkInsert {
    async fn begin(database: &Database, root: String) -> Result<Self, sqlx::Error> {
        let mut engine = match database {
            Database::Sqlite(file) => {
                let url = format!("sqlite://{}", file.display());
                Engine::Sqlite(SqliteConnection::connect(&url).await?)
            }
            Database::Postgres(url) => Engine::Postgres(PgConnection::connect(url).await?),
        };
        match &mut engine {
            Engine::Sqlite(connection) => {
                sqlx::query("BEGIN").execute(connection).await?;
            }
            Engine::Postgres(connection) => {
                sqlx::query("BEGIN").execute(connection).await?;
            }
        }
        Ok(Self { engine, root })
    }

    async fn insert(&mut self, keys: &[Key]) -> Result<(), Box<dyn Error>> {
        let facts = serde_json::to_string(keys)?;
        let last = keys.last().ok_or("an empty batch")?;
        let revision = last.created_revision.as_u64() as i64;
        let time = last.created_at.as_micros();
        match &mut self.engine {
            Engine::Sqlite(connection) => {
                for statement in SQLITE {
                    sqlx::query(statement)
                        .bind(&facts)
                        .bind(&self.root)
                        .execute(&mut *connection)
                        .await?;
                }
                sqlx::query(COUNTER)
                    .bind(revision)
                    .bind(time)
                    .execute(connection)
                    .await?;
            }
            Engine::Postgres(connection) => {
                for statement in POSTGRES {
                    sqlx::query(statement)
                        .bind(&facts)
                        .bind(&self.root)
                        .execute(&mut *connection)
                        .await?;
                }
                sqlx::query(COUNTER)
                    .bind(revision)
                    .bind(time)
                    .execute(connection)
                    .await?;
            }
        }
        Ok(())
    }

    async fn commit(self) -> Result<(), sqlx::Error> {
        match self.engine {
            Engine::Sqlite(mut connection) => {
                sqlx::query("COMMIT").execute(&mut connection).await?;
                connection.close().await
            }
            Engine::Postgres(mut connection) => {
                sqlx::query("COMMIT").execute(&mut connection).await?;
                // In a real database autovacuum has done this before the table is so large.
                sqlx::query("VACUUM ANALYZE")
                    .execute(&mut connection)
                    .await?;
                connection.close().await
            }
        }
    }
}

const COUNTER: &str = "UPDATE authority SET revision = $1, clock = $2";

/// $1 is a JSON array of keys, $2 the root that they share.
const SQLITE: [&str; 3] = [
    "INSERT INTO keys (id, facts)
     SELECT unhex(value ->> '$.id', '-'), value FROM json_each($1) WHERE $2 IS NOT NULL",
    "INSERT INTO roots (key_id, created_at, root)
     SELECT unhex(value ->> '$.id', '-'), value ->> '$.created_at', $2 FROM json_each($1)",
    "INSERT INTO events (revision, stamp, time, peer, kind, realm, partner, key_id, detail)
     SELECT value ->> '$.created_revision', random(), value ->> '$.created_at', '', 'key.issued', value ->> '$.realm',
         value ->> '$.partner', unhex(value ->> '$.id', '-'), json_object('hint', value ->> '$.hint')
     FROM json_each($1) WHERE $2 IS NOT NULL",
];

const POSTGRES: [&str; 3] = [
    "INSERT INTO keys (id, facts)
     SELECT (value ->> 'id')::uuid, value::text FROM json_array_elements($1::json) WHERE $2::text IS NOT NULL",
    "INSERT INTO roots (key_id, created_at, root)
     SELECT (value ->> 'id')::uuid, (value ->> 'created_at')::bigint, $2::text FROM json_array_elements($1::json)",
    "INSERT INTO events (revision, stamp, time, peer, kind, realm, partner, key_id, detail)
     SELECT (value ->> 'created_revision')::bigint, (random() * 9e18)::bigint, (value ->> 'created_at')::bigint, '',
         'key.issued', value ->> 'realm', value ->> 'partner', (value ->> 'id')::uuid,
         json_build_object('hint', value ->> 'hint')::text
     FROM json_array_elements($1::json) WHERE $2::text IS NOT NULL",
];

/// A route that needs a scope and matches any path directly below its own.
fn route_of(number: usize) -> Route {
    let path = format!("{}/{{item}}", route(number));
    Route {
        methods: [Method::parse("GET").expect("a valid method")].into(),
        path: PathTemplate::parse(&path).expect("a valid template"),
        need: Need::Key(KeyNeed {
            reach: Reach::Partner,
            scopes: [scope_name("write")].into(),
            any_scopes: Vec::new(),
        }),
    }
}

/// The realm of the measured keys.
fn demo() -> Realm {
    let scope = |name, implies: &[&str]| Scope {
        name,
        implies: implies.iter().map(|name| scope_name(name)).collect(),
        description: String::new(),
        replaces: None,
    };
    Realm {
        id: RealmId::parse("demo").expect("a valid realm"),
        prefix: Prefix::parse("demo").expect("a valid prefix"),
        environments: vec![Environment {
            name: EnvironmentName::parse("production").expect("a valid environment"),
            tag: Tag::parse("live").expect("a valid tag"),
        }],
        scopes: [
            scope(scope_name("read"), &[]),
            scope(scope_name("write"), &["read"]),
            scope(scope_name("admin"), &["write"]),
        ]
        .into_iter()
        .chain((0..SCOPE_SETS).map(|set| scope(module_scope(set), &[])))
        .collect(),
        admin_scope: None,
        unscoped_keys: UnscopedKeys::NoAccess,
        levels: BTreeSet::from([LevelKind::Partner, LevelKind::Project]),
        max_cache: std::time::Duration::ZERO,
        max_lifetime: None,
        credentials: Credentials {
            sources: vec![CredentialSource::Header {
                name: HeaderName::parse("authorization").expect("a valid header"),
                scheme: Some(Scheme::parse("Bearer").expect("a valid scheme")),
            }],
            partner: None,
        },
        routes: (0..ROUTES).map(route_of).collect(),
        paths: PathRules::default(),
        denials: Denials::new(),
        identity_labels: Vec::new(),
        self_rotation: false,
        record_addresses: false,
    }
}

fn scope_name(name: &str) -> ScopeName {
    ScopeName::parse(name).expect("a valid scope")
}

/// The scope by which a set of scopes differs from the others.
fn module_scope(set: u8) -> ScopeName {
    scope_name(&format!("module-{set:02}"))
}

fn owner(number: usize) -> PartnerId {
    PartnerId::parse(&format!("partner-{number}")).expect("a valid partner")
}

fn partner(realm: RealmId, id: PartnerId) -> Partner {
    Partner {
        realm,
        id,
        display_name: String::new(),
        suspended: false,
    }
}

fn subject(realm: &RealmId, partner: Option<PartnerId>, key: Option<KeyId>) -> Subject {
    Subject {
        realm: realm.clone(),
        partner,
        project: None,
        key,
    }
}

async fn commit(change: Change, kind: EventKind, subject: Subject) -> Result<(), Box<dyn Error>> {
    let event = Event {
        revision: change.revision(),
        time: change.time(),
        actor: Actor::command_line(),
        kind,
        subject,
        detail: BTreeMap::new(),
    };
    change.commit(&event).await?;
    Ok(())
}

/// The path prefix of one of the realm's routes; all prefixes have the same length.
pub(crate) fn route(number: usize) -> String {
    format!("/api/v1/service{:0>3}/items", number % ROUTES)
}
