-- Times are microseconds since the Unix epoch. Text is compared byte by byte.

-- One row. Every change takes it first, so that changes are serial and revisions without gaps.
CREATE TABLE authority (
    one            INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    revision       INTEGER NOT NULL,
    -- The latest time that was ever seen: the clock never runs back behind it.
    clock          INTEGER NOT NULL,
    -- The version of the pepper under which new digests are made.
    pepper         INTEGER NOT NULL,
    -- Authenticates page tokens, and nothing else.
    seal           BLOB    NOT NULL
) STRICT;

-- What a pepper file is known by.
CREATE TABLE peppers (
    version        INTEGER NOT NULL PRIMARY KEY,
    canary         BLOB    NOT NULL
) STRICT;

-- Each change once: audit trail, change feed and consistency token.
CREATE TABLE events (
    revision       INTEGER NOT NULL PRIMARY KEY,
    -- Random: tells a history that was cut and written anew.
    stamp          INTEGER NOT NULL,
    time           INTEGER NOT NULL,
    actor          BLOB,
    peer           TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    realm          TEXT    NOT NULL,
    partner        TEXT,
    project        TEXT,
    key_id         BLOB,
    detail         TEXT    NOT NULL
) STRICT;
CREATE INDEX events_by_key ON events (key_id, revision) WHERE key_id IS NOT NULL;
CREATE INDEX events_by_realm ON events (realm, revision);
CREATE INDEX events_by_partner ON events (realm, partner, revision);

CREATE TABLE realms (
    id             TEXT    NOT NULL PRIMARY KEY,
    -- The realm as JSON; the columns below it are read out of it.
    definition     TEXT    NOT NULL,
    prefix         TEXT    GENERATED ALWAYS AS (definition ->> '$.prefix') STORED UNIQUE,
    revision       INTEGER NOT NULL,
    created_at     INTEGER NOT NULL
) STRICT;

CREATE TABLE partners (
    realm          TEXT    NOT NULL REFERENCES realms ON DELETE CASCADE,
    id             TEXT    NOT NULL,
    display_name   TEXT    NOT NULL,
    suspended      INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (realm, id)
) STRICT, WITHOUT ROWID;

-- A deleted project keeps its row, since its id stays its partner's.
CREATE TABLE projects (
    realm          TEXT    NOT NULL REFERENCES realms ON DELETE CASCADE,
    id             TEXT    NOT NULL,
    partner        TEXT    NOT NULL,
    display_name   TEXT    NOT NULL,
    deleted        INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (realm, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX projects_by_partner ON projects (realm, partner, id);

CREATE TABLE keys (
    id             BLOB    NOT NULL PRIMARY KEY,
    -- All facts of the key as JSON, in one value because a mirror of a million keys is loaded from it; the columns below it
    -- are read out of it and can therefore not disagree with it.
    facts          TEXT    NOT NULL,
    realm          TEXT    GENERATED ALWAYS AS (facts ->> '$.realm') STORED,
    partner        TEXT    GENERATED ALWAYS AS (facts ->> '$.partner') STORED,
    project        TEXT    GENERATED ALWAYS AS (facts ->> '$.project') STORED,
    environment    TEXT    GENERATED ALWAYS AS (facts ->> '$.environment') STORED,
    scopes         TEXT    GENERATED ALWAYS AS (facts ->> '$.access.scopes') STORED,
    disabled       INTEGER GENERATED ALWAYS AS (facts ->> '$.disabled') STORED,
    expires_at     INTEGER GENERATED ALWAYS AS (facts ->> '$.expires_at') STORED,
    revoked_at     INTEGER GENERATED ALWAYS AS (facts ->> '$.revocation.at') STORED
) STRICT;
CREATE INDEX keys_by_partner ON keys (realm, partner, id);
CREATE INDEX keys_by_project ON keys (realm, project, id);
CREATE INDEX keys_by_realm ON keys (realm, id);

-- The slow hash of each secret: what a lost pepper's digests are made again from. Nothing else reads it.
CREATE TABLE roots (
    key_id         BLOB    NOT NULL REFERENCES keys ON DELETE CASCADE,
    created_at     INTEGER NOT NULL,
    root           TEXT    NOT NULL,
    PRIMARY KEY (key_id, created_at)
) STRICT, WITHOUT ROWID;
