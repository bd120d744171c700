-- What is only read whole has no statistics: ANALYZE would sample and sort these texts, and no plan asks for them.
ALTER TABLE deliveries ALTER COLUMN data SET STATISTICS 0, ALTER COLUMN answer SET STATISTICS 0,
    ALTER COLUMN last_error SET STATISTICS 0, ALTER COLUMN trace SET STATISTICS 0;
