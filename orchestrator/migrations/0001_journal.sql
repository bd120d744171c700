-- The journal: one row a saga. Times are ms since 1970.
--
-- Nothing that changes in a saga's life is indexed, so that updates stay in place (HOT). Due times live in memory of the
-- dispatching replica; after a crash the unfinished sagas are found by a table of their ids, since an index on what has
-- ended would make every saga's last update enter all indexes anew.
--
-- What never changes comes first, and what is new in the history before what is old: of an update that stays on its page, the
-- log takes only what lies between what is alike at the row's beginning and at its end.
--
-- Updates prune their pages, and what has ended rests: the table is looked through when it has grown by half.
CREATE TABLE sagas (
    id                 uuid    PRIMARY KEY,
    definition         text    NOT NULL,
    definition_version integer NOT NULL,
    owner              uuid,
    idempotency_key    text,
    fingerprint        text,
    event              uuid,
    trace              text,
    started_at         bigint  NOT NULL,
    input              text    NOT NULL,  -- JSON
    updated_at         bigint  NOT NULL,
    version            bigint  NOT NULL,
    dispatcher         uuid    NOT NULL,
    ended              boolean NOT NULL,
    attention          boolean NOT NULL,
    state              text    NOT NULL,
    step               text,
    body               text    NOT NULL,  -- what changes in eventicket_saga::Saga, as JSON
    history            text    NOT NULL   -- eventicket_saga::Entry as JSON, one a line, newest first
) WITH (fillfactor = 35, toast_tuple_target = 8160,
        autovacuum_vacuum_scale_factor = 0.5, autovacuum_vacuum_insert_scale_factor = 0.5, autovacuum_analyze_scale_factor = 2);

-- The key first: operators look for it without its owner.
CREATE UNIQUE INDEX sagas_idempotency ON sagas (idempotency_key, owner) WHERE idempotency_key IS NOT NULL;
CREATE INDEX sagas_owner ON sagas (owner, id);
CREATE INDEX sagas_event ON sagas (event, id);
-- Few sagas are ever marked, and the others are neither in it nor moved by it.
CREATE INDEX sagas_attention ON sagas (id) WHERE attention;

-- The sagas that have not ended.
CREATE TABLE unfinished (
    id uuid PRIMARY KEY
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- The orchestrator's replicas; a name is used for one life of a process.
CREATE TABLE replicas (
    name         uuid   PRIMARY KEY,
    heartbeat_at bigint NOT NULL,
    outstanding  text   NOT NULL DEFAULT '{}'  -- commands in flight by service, net of this replica's records, as JSON
) WITH (fillfactor = 50);

-- Breakers by target service, shared by all replicas.
CREATE TABLE breakers (
    service    text   PRIMARY KEY,
    mode       text   NOT NULL,  -- auto, or open or closed where an operator forces it
    state      text   NOT NULL,  -- eventicket_saga::breaker::State as JSON, closed where it is forced
    version    bigint NOT NULL,
    changed_at bigint NOT NULL,
    actor      text,             -- who set the mode
    reason     text              -- and why
);
