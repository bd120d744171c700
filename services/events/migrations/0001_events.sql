-- Times are milliseconds since 1970.
CREATE TABLE events (
    id         uuid   PRIMARY KEY,
    organizer  uuid   NOT NULL,
    state      text   NOT NULL CHECK (state IN ('draft', 'publishing', 'published', 'stopped', 'cancelled')),
    version    bigint NOT NULL,               -- rises with each change, of the state too
    title      text   NOT NULL,
    category   text   NOT NULL,
    starts_at  bigint NOT NULL,
    ends_at    bigint NOT NULL,
    details    text   NOT NULL,               -- JSON of everything that the organizer wrote, but the seats
    seats      text   NOT NULL,               -- JSON: the labels of each ticket type; apart, so that lists need not read them
    change_version bigint,                    -- the last change of what is sold: the version that was offered to bookings,
    change_refused text,                      -- why it was refused,
    change_to  text,                          -- JSON of what the event becomes if not; present while bookings decides
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);
CREATE INDEX events_listed ON events (state, starts_at, id);
CREATE INDEX events_by_start ON events (starts_at, id);
CREATE INDEX events_of ON events (organizer, starts_at, id);

-- Idempotency keys of creations with the answer that they got, kept for a day.
CREATE TABLE creations (
    organizer   uuid   NOT NULL,
    key         text   NOT NULL,
    fingerprint text   NOT NULL,
    answer      text   NOT NULL,              -- JSON of the event as it was made
    created_at  bigint NOT NULL,
    PRIMARY KEY (organizer, key)
);
CREATE INDEX creations_age ON creations (created_at);

-- Changes of what is sold whose sagas are to be opened, written with `change_to`.
CREATE TABLE saga_starts (
    id         uuid    PRIMARY KEY,           -- the saga's, so that a repeat finds the first
    event      uuid    NOT NULL,
    organizer  uuid    NOT NULL,
    input      text    NOT NULL,              -- JSON
    trace      text,                          -- W3C traceparent of the request that it comes from
    done       boolean NOT NULL DEFAULT false,
    refused    text,                          -- the reason, where the saga was not accepted
    created_at bigint  NOT NULL
);
CREATE INDEX saga_starts_due ON saga_starts (id) WHERE NOT done;

-- The recorded answers of `settle`, one a round.
CREATE TABLE settlements (
    saga       uuid    NOT NULL,
    step       text    NOT NULL,
    round      integer NOT NULL,
    answer     text    NOT NULL,              -- JSON
    settled_at bigint  NOT NULL,
    PRIMARY KEY (saga, step, round)
);

CREATE TABLE outbox (id uuid PRIMARY KEY, subject text NOT NULL, payload text NOT NULL, created_at bigint NOT NULL, sequence bigint);
CREATE INDEX outbox_unsent ON outbox (id) WHERE sequence IS NULL;
