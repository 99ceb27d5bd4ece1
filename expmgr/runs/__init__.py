"""The data of a run: what it is asked (request), what it reports (events), what it leaves (record)."""
