-- The servers that share the database, and how long each may say "allowed" without news from it.

-- In microseconds. While the lease is being shortened, a server may still have one of the longest.
ALTER TABLE authority ADD COLUMN lease BIGINT NOT NULL DEFAULT 30000000;
ALTER TABLE authority ADD COLUMN longest_lease BIGINT NOT NULL DEFAULT 30000000;
-- A timeline of PostgreSQL that every lease from an earlier one has lapsed on: no report and no registration can be missing that
-- a failover has lost. No server runs while this is migrated.
ALTER TABLE authority ADD COLUMN settled_timeline BIGINT NOT NULL DEFAULT 0;
UPDATE authority SET settled_timeline = ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint;

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
