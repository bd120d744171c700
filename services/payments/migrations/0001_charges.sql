-- One row a round of a saga's step: the record of charge and refund, and the work that the driver has to do. Amounts are
-- minor units, times milliseconds since 1970.
CREATE TABLE charges (
    saga         uuid    NOT NULL,
    step         text    NOT NULL,
    round        integer NOT NULL,
    state        text    NOT NULL CHECK (state IN ('open', 'created', 'cancelling', 'pending', 'done', 'rejected',
                                                   'closing', 'refunding', 'refunded', 'void', 'tombstone')),
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
    refund       text,                       -- the gateway's id of a refund that is not settled at once
    refunded     bigint,
    outcome      text CHECK (outcome IN ('done', 'rejected')), -- how the charge ended, whatever its undo does then
    code         text,                       -- of the rejection, also of one that waits for the intent's cancellation
    message      text,
    reply_to     text,                       -- where the charge's end is told
    attempt      integer,
    undo_reply_to text,                      -- where the undo's end is told
    undo_attempt integer,
    created_at   bigint  NOT NULL,
    updated_at   bigint  NOT NULL,
    PRIMARY KEY (saga, step, round)
) WITH (fillfactor = 70);
-- No index on state or owner: each update would have to maintain it. Rows without a driver are found by a scan, which
-- happens once for each replica that died.

-- The replicas that drive charges. A row whose beat has lapsed is a mark that its charges need another driver; it is
-- deleted once they have one.
CREATE TABLE replicas (
    id      uuid        PRIMARY KEY,
    seen_at timestamptz NOT NULL             -- by the database's clock, which all replicas share
);

CREATE TABLE outbox (id uuid PRIMARY KEY, subject text NOT NULL, payload text NOT NULL, created_at bigint NOT NULL, sequence bigint);
CREATE INDEX outbox_unsent ON outbox (id) WHERE sequence IS NULL;
