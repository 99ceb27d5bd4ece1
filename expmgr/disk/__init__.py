"""Files on disk: atomic durable writes, locks, and the index of records, which is only a cache."""
