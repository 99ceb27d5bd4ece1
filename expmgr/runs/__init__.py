"""What a run is asked (request), what it reports (events) and what it leaves (record)."""
