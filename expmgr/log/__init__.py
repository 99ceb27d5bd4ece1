"""What happened, as events in refs/expmgr/log: their kinds, the chain, and who writes."""
