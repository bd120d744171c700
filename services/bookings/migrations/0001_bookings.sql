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
    max_per_customer bigint,
    cancelled        boolean NOT NULL DEFAULT false
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
    numbered      boolean NOT NULL DEFAULT false,           -- it has a plan of seats
    free_from     bigint  NOT NULL DEFAULT 0,               -- all seats before this position of the plan are taken
    PRIMARY KEY (event, id),
    CHECK (available <= quantity)
) WITH (fillfactor = 25);

-- The plans of numbered types. Only offers write them.
CREATE TABLE seats (
    event       uuid    NOT NULL,
    label       text    COLLATE "C" NOT NULL,
    ticket_type uuid    NOT NULL,
    position    integer NOT NULL,               -- in the plan of the type
    PRIMARY KEY (event, label)
);

CREATE INDEX seats_in_order ON seats (ticket_type, position);

-- The seats that are held or sold, each with its hold: inserted with the hold, deleted when it is given back. Under the
-- capacity lock of the event nobody meets the key; should anything ever go around the lock, it does.
CREATE TABLE taken_seats (
    event uuid    NOT NULL,
    seat  text    COLLATE "C" NOT NULL,
    saga  uuid    NOT NULL,
    step  text    NOT NULL,
    round integer NOT NULL,
    PRIMARY KEY (event, seat)
);

-- One row a round of a step that reserves: the record of its reserve, release and confirm in one, and of the tickets.
-- It is inserted once and updated at most once. No index has a column that changes, so that the update stays on its page
-- (HOT): hence the free half. What few look for is kept out of the way of all: the sweep finds holds by hold_ends, and
-- customers are in an index only where the event limits them.
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
    tickets     bigint,                         -- their number; null where nothing was ever held
    max_per_customer bigint,                    -- the event's when the hold was made
    counted     boolean NOT NULL DEFAULT false, -- for the limit of its event; false where that came later and none asked yet
    codes       text[],                         -- one for each ticket, in the order of the lines; null until it is confirmed
    PRIMARY KEY (saga, step, round)
) WITH (fillfactor = 50,
        autovacuum_vacuum_scale_factor = 0.5, autovacuum_vacuum_insert_scale_factor = 0.5, autovacuum_analyze_scale_factor = 2);

CREATE INDEX holds_counted ON holds (event, customer) WHERE counted;

-- When the grace of holds ends, one row for those of a batch that end together. The sweep deletes it once none of them is
-- held any more.
CREATE TABLE hold_ends (
    until bigint NOT NULL,
    id    bigint GENERATED ALWAYS AS IDENTITY,
    sagas uuid[] NOT NULL,
    PRIMARY KEY (until, id)
);

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

-- What fences were told.
CREATE TABLE fences (
    saga       uuid    NOT NULL,
    step       text    NOT NULL,
    round      integer NOT NULL,
    id         integer NOT NULL,                -- of the fence, within its round
    answer     text    NOT NULL,                -- JSON
    created_at bigint  NOT NULL,
    PRIMARY KEY (saga, step, round, id)
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

CREATE TABLE outbox (id uuid PRIMARY KEY, subject text NOT NULL, payload text STORAGE EXTERNAL NOT NULL, created_at bigint NOT NULL,
                     sequence bigint);
CREATE INDEX outbox_unsent ON outbox (id) WHERE sequence IS NULL;
