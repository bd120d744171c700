-- What is only read whole has no statistics: ANALYZE would sample and sort these texts, and no plan asks for them.
ALTER TABLE sagas ALTER COLUMN input SET STATISTICS 0, ALTER COLUMN body SET STATISTICS 0, ALTER COLUMN history SET STATISTICS 0,
    ALTER COLUMN fingerprint SET STATISTICS 0, ALTER COLUMN trace SET STATISTICS 0;
