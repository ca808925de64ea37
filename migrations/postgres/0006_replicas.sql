-- The servers that share the database, and how long each may say "allowed" without news from it.

-- In microseconds. While the lease is being shortened, a server may still have one of the longest.
ALTER TABLE authority ADD COLUMN lease BIGINT NOT NULL DEFAULT 30000000;
ALTER TABLE authority ADD COLUMN longest_lease BIGINT NOT NULL DEFAULT 30000000;
-- A timeline of PostgreSQL that every lease from an earlier one has lapsed on: no report and no registration can be missing that
-- a failover has lost. No server runs while this is migrated.
ALTER TABLE authority ADD COLUMN settled_timeline BIGINT NOT NULL DEFAULT 0;
UPDATE authority SET settled_timeline = ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint;

-- How far the authority's time is ahead of the database's clock, in microseconds, and how often an operator has set the time.
ALTER TABLE authority ADD COLUMN clock_ahead BIGINT NOT NULL DEFAULT 0;
ALTER TABLE authority ADD COLUMN clock_setting BIGINT NOT NULL DEFAULT 0;

CREATE TABLE replicas (
    -- Random. A server that was struck off gets another one.
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    -- loading: does not answer yet. serving: may say "allowed" by its lease.
    state TEXT NOT NULL,
    -- Changed to a random number by each heartbeat, which must know the one before.
    beat BIGINT NOT NULL,
    -- The event up to which the server has applied all changes.
    reported_revision BIGINT NOT NULL,
    reported_stamp BIGINT NOT NULL,
    -- For people: how much of the lease was left, and the time of the database, at the last heartbeat. In microseconds.
    lease_left BIGINT NOT NULL,
    beat_time BIGINT NOT NULL,
    warning TEXT NOT NULL
);

-- The database in which the last change was made. The first change in another one begins an epoch, because it may lack changes.
ALTER TABLE authority ADD COLUMN database_identity TEXT NOT NULL DEFAULT '';
UPDATE authority SET database_identity = (SELECT concat_ws('/', system_identifier,
    (SELECT oid FROM pg_database WHERE datname = current_database()),
    substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)) FROM pg_control_system());

-- Where epochs begin. The changes of earlier epochs after the last revision are lost.
CREATE TABLE forks (
    epoch BIGINT PRIMARY KEY,
    last_revision BIGINT NOT NULL
);

-- What stays taken away, although the change that took it was lost at a fork.
CREATE TABLE holds (
    epoch BIGINT NOT NULL,
    -- What it is about, such as `key ID` or `partner REALM/ID`.
    held TEXT COLLATE "C" NOT NULL,
    -- Of the hold: servers may know different ones of the same thing.
    sha256 BYTEA NOT NULL,
    -- JSON.
    hold TEXT NOT NULL,
    PRIMARY KEY (epoch, held, sha256)
);
CREATE INDEX holds_by_name ON holds (held);
