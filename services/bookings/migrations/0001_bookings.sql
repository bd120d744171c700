-- What is sold, as the command `offer` brought it. The row is the capacity lock of its event: whoever changes what is
-- available holds it (FOR UPDATE, sorted by id), and reads the ticket types in a later statement.
CREATE TABLE events (
    id               uuid    PRIMARY KEY,
    version          bigint  NOT NULL,
    title            text    NOT NULL,
    starts_at        bigint  NOT NULL,          -- times are ms since 1970
    ends_at          bigint  NOT NULL,
    on_sale          boolean NOT NULL,
    hold_seconds     bigint,
    max_per_customer bigint
) WITH (fillfactor = 50);

CREATE TABLE ticket_types (
    event         uuid    NOT NULL,
    id            uuid    NOT NULL,
    position      integer NOT NULL,             -- in the event's own order
    name          text    NOT NULL,
    price         bigint  NOT NULL CHECK (price >= 0),
    currency      text    NOT NULL,
    quantity      bigint  NOT NULL,
    available     bigint  NOT NULL CHECK (available >= 0),  -- quantity less what is held and confirmed
    max_per_order bigint,
    PRIMARY KEY (event, id),
    CHECK (available <= quantity)
) WITH (fillfactor = 25);

-- One row a round of a step that reserves: the record of its reserve, release and confirm in one. It is inserted once
-- and updated at most once. No index has a column that changes, so that the update stays on its page (HOT): hence the
-- free half, and hence the sweep's index knows all ends of grace and not only those that are still held.
CREATE TABLE holds (
    saga        uuid    NOT NULL,
    step        text    NOT NULL,
    round       integer NOT NULL,
    state       text    NOT NULL CHECK (state IN ('held', 'confirmed', 'released', 'expired', 'refused', 'tombstone')),
    changes     integer NOT NULL,               -- of its state
    changed_at  bigint  NOT NULL,
    created_at  bigint  NOT NULL,
    grace_until bigint,                         -- null where nothing was ever held
    event       uuid    NOT NULL,
    customer    uuid,                           -- null in a tombstone
    answer      text,                           -- JSON of the Reserved or of the Rejection; null in a tombstone
    PRIMARY KEY (saga, step, round)
) WITH (fillfactor = 50);

CREATE INDEX holds_grace ON holds (grace_until) WHERE grace_until IS NOT NULL;

-- Up to where nothing is held any more; where a fresh sweep begins.
CREATE TABLE swept (until bigint NOT NULL);
INSERT INTO swept VALUES (0);

CREATE TABLE tickets (
    code        text    COLLATE "C" PRIMARY KEY,
    booking     uuid    NOT NULL,
    number      integer NOT NULL,               -- within the booking
    event       uuid    NOT NULL,
    ticket_type uuid    NOT NULL,
    name        text    NOT NULL,
    issued_at   bigint  NOT NULL
);

CREATE INDEX tickets_booking ON tickets (booking);

-- The answers of offers.
CREATE TABLE offers (
    saga       uuid    NOT NULL,
    step       text    NOT NULL,
    round      integer NOT NULL,
    event      uuid    NOT NULL,
    version    bigint  NOT NULL,
    answer     text    NOT NULL,                -- JSON
    created_at bigint  NOT NULL,
    PRIMARY KEY (saga, step, round)
);

-- What `availability.changed` last told of an event; its lock and its time bound the rate over all replicas.
CREATE TABLE announced (
    event   uuid   PRIMARY KEY,
    version bigint NOT NULL,
    at      bigint NOT NULL,
    summary text   NOT NULL
) WITH (fillfactor = 50);

-- All that `availability.changed` tells, as one text to compare.
CREATE VIEW summaries AS
SELECT e.id AS event, e.ends_at,
       concat(e.on_sale, ';', (SELECT string_agg(concat(t.id, ' ', t.available, '/', t.quantity), ';' ORDER BY t.position, t.id)
                               FROM ticket_types t WHERE t.event = e.id)) AS summary
FROM events e;

CREATE TABLE outbox (id uuid PRIMARY KEY, subject text NOT NULL, payload text NOT NULL, created_at bigint NOT NULL, sequence bigint);
CREATE INDEX outbox_unsent ON outbox (id) WHERE sequence IS NULL;
