-- One row a round of a saga's step: the record of its answer and the mail that waits to leave. It names the customer
-- by id only; the address is asked for when the mail leaves. Times are milliseconds since 1970.
CREATE TABLE deliveries (
    saga       uuid    NOT NULL,
    step       text    NOT NULL,
    round      integer NOT NULL,
    state      text    NOT NULL CHECK (state IN ('due', 'sent', 'failed', 'refused')),
    template   text    NOT NULL,
    customer   uuid    NOT NULL,
    data       text    NOT NULL,             -- JSON, as the template wants it
    answer     text,                         -- JSON of the rejection, where it was refused
    trace      text,                         -- W3C traceparent of the command, where its trace is recorded
    tries      integer NOT NULL DEFAULT 0,   -- rises with each claim, and so names the claim
    due_at     bigint  NOT NULL,             -- the next try, or the end of the claim's lease
    last_error text,
    created_at bigint  NOT NULL,
    ended_at   bigint,
    PRIMARY KEY (saga, step, round)
) WITH (fillfactor = 85,
        autovacuum_vacuum_scale_factor = 0.5, autovacuum_vacuum_insert_scale_factor = 0.5, autovacuum_analyze_scale_factor = 2);

-- What still has to leave; holds no other rows. The age is for the figures, which are read from the index alone.
CREATE INDEX deliveries_due ON deliveries (due_at) INCLUDE (created_at) WHERE state = 'due';
