-- Times are milliseconds since 1970.
CREATE TABLE users (
    id            uuid   PRIMARY KEY,
    email         text   NOT NULL UNIQUE,      -- lower case
    name          text   NOT NULL,
    password_hash text   NOT NULL,             -- PHC string, Argon2id
    roles         text[] NOT NULL,
    version       bigint NOT NULL,
    created_at    bigint NOT NULL,
    updated_at    bigint NOT NULL
);

-- Idempotency keys of registrations, kept for a day.
CREATE TABLE registrations (
    key         text   PRIMARY KEY,
    fingerprint text   NOT NULL,
    user_id     uuid   NOT NULL,
    created_at  bigint NOT NULL
);
CREATE INDEX registrations_age ON registrations (created_at);

-- A sign-in and all refresh tokens that follow from it.
CREATE TABLE sessions (
    id         uuid   PRIMARY KEY,
    user_id    uuid   NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,                -- end of its newest refresh token
    ended_at   bigint                          -- ended before its time: a used token came again
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_age ON sessions (expires_at);

-- Never the token, only its SHA-256.
CREATE TABLE refresh_tokens (
    hash       bytea  PRIMARY KEY,
    session    uuid   NOT NULL REFERENCES sessions ON DELETE CASCADE,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    used_at    bigint
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (session);

-- The keys of access tokens. The newest whose time has come signs; all of them stand in the JWKS.
CREATE TABLE signing_keys (
    id          uuid   PRIMARY KEY,            -- the kid
    public      text   NOT NULL,               -- JWK
    private     text   NOT NULL,               -- PKCS#8 DER in base64, sealed for the id
    active_from bigint NOT NULL,
    created_at  bigint NOT NULL
);

CREATE TABLE outbox (id uuid PRIMARY KEY, subject text NOT NULL, payload text NOT NULL, created_at bigint NOT NULL, sequence bigint);
CREATE INDEX outbox_unsent ON outbox (id) WHERE sequence IS NULL;
