-- One row a round of a saga's step: the record of charge and refund, and the work that the driver has to do. Amounts are
-- minor units, times milliseconds since 1970.
CREATE TABLE charges (
    saga         uuid    NOT NULL,
    step         text    NOT NULL,
    round        integer NOT NULL,
    state        text    NOT NULL CHECK (state IN ('open', 'created', 'cancelling', 'pending', 'done', 'rejected',
                                                   'closing', 'refunding', 'refunded', 'refund_refused',
                                                   'refund_failed', 'void', 'tombstone')),
    version      integer NOT NULL,           -- rises with each write; who drives the row writes only over its own version
    owner        uuid    NOT NULL,           -- the replica that drives it
    customer     uuid,                       -- this and the next three are null in a tombstone only
    amount       bigint,
    currency     text,
    description  text,
    method       text,                       -- sealed; cleared once it cannot be needed any more
    intent       text,                       -- the gateway's id; the first one counts for ever
    create_key   integer NOT NULL DEFAULT 0, -- how often a stored failure made a new gateway key necessary
    confirm_key  integer NOT NULL DEFAULT 0,
    refund_key   integer NOT NULL DEFAULT 0,
    next_action  text,                       -- where a pending charge's customer has to go
    refund       text,                       -- the gateway's id of the refund
    refunded     bigint,
    refund_error text,                       -- why the refund was refused or failed
    outcome      text CHECK (outcome IN ('done', 'rejected')), -- how the charge ended, whatever its undo does then
    code         text,                       -- of the rejection, also of one that waits for the intent's cancellation
    message      text,
    reply_to     text,                       -- where the charge's end is told
    attempt      integer,
    undo_reply_to text,                      -- where the undo's end is told
    undo_attempt integer,                    -- the last one: a higher one tries a refused refund again
    undo_reason  text,                       -- for the gateway's record
    undo_closed  boolean NOT NULL DEFAULT false, -- a fence has told how the undo stands: it neither begins nor is tried again
    fence        text,                       -- JSON of the last fence: id, what it asked for, where its answer goes, the answer
    failed_refund uuid,                      -- the saga that stands for a refund which failed
    trace        text,                       -- W3C traceparent of the command, where its trace is recorded
    created_at   bigint  NOT NULL,
    updated_at   bigint  NOT NULL,
    PRIMARY KEY (saga, step, round)
) WITH (fillfactor = 50,
        autovacuum_vacuum_scale_factor = 0.5, autovacuum_vacuum_insert_scale_factor = 0.5, autovacuum_analyze_scale_factor = 2);
-- No index on state or owner: each update would have to maintain it. Rows without a driver are found by a scan, which
-- happens once for each replica that died.

-- The replicas that drive charges. A row whose beat has lapsed is a mark that its charges need another driver; it is
-- deleted once they have one.
CREATE TABLE replicas (
    id      uuid        PRIMARY KEY,
    seen_at timestamptz NOT NULL             -- by the database's clock, which all replicas share
);

-- Sagas to open for refunds that failed, written with the row that names them.
CREATE TABLE saga_starts (
    id         uuid    PRIMARY KEY,          -- the saga's, so that a repeat finds the first
    customer   uuid    NOT NULL,
    input      text    NOT NULL,             -- JSON
    done       boolean NOT NULL DEFAULT false,
    created_at bigint  NOT NULL
);
CREATE INDEX saga_starts_due ON saga_starts (id) WHERE NOT done;

-- Refunds that have succeeded and are looked at again for a while, since they may fail afterwards.
CREATE TABLE refund_watches (
    saga   uuid    NOT NULL,
    step   text    NOT NULL,
    round  integer NOT NULL,
    looks  integer NOT NULL DEFAULT 0,       -- that brought an answer
    due_at bigint  NOT NULL,
    PRIMARY KEY (saga, step, round)
);
CREATE INDEX refund_watches_due ON refund_watches (due_at);

-- Webhooks that had an effect, kept longer than the gateway repeats them.
CREATE TABLE webhooks (
    id      text   PRIMARY KEY,
    seen_at bigint NOT NULL
);
CREATE INDEX webhooks_age ON webhooks (seen_at);

CREATE TABLE outbox (id uuid PRIMARY KEY, subject text NOT NULL, payload text STORAGE EXTERNAL NOT NULL, created_at bigint NOT NULL,
    sequence bigint);
CREATE INDEX outbox_unsent ON outbox (id) WHERE sequence IS NULL;
