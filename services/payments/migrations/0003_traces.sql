-- The saga of a refund that failed belongs to its booking's trace.
ALTER TABLE saga_starts ADD COLUMN trace text; -- W3C traceparent, where it is recorded
