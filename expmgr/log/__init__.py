"""The event log in `refs/expmgr/log`: the kinds of events, their chain of commits, and its writers."""
