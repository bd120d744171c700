-- What is only read whole has no statistics: ANALYZE would sample and sort these texts, and no plan asks for them.
ALTER TABLE charges ALTER COLUMN description SET STATISTICS 0, ALTER COLUMN method SET STATISTICS 0,
    ALTER COLUMN intent SET STATISTICS 0, ALTER COLUMN reply_to SET STATISTICS 0, ALTER COLUMN trace SET STATISTICS 0;
ALTER TABLE outbox ALTER COLUMN payload SET STATISTICS 0, ALTER COLUMN subject SET STATISTICS 0;
