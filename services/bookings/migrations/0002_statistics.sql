-- What is only read whole has no statistics: ANALYZE would sample and sort these texts, and no plan asks for them.
ALTER TABLE holds ALTER COLUMN answer SET STATISTICS 0, ALTER COLUMN codes SET STATISTICS 0;
ALTER TABLE hold_ends ALTER COLUMN sagas SET STATISTICS 0;
ALTER TABLE outbox ALTER COLUMN payload SET STATISTICS 0, ALTER COLUMN subject SET STATISTICS 0;
