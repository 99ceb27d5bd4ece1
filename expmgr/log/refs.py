"""Names of the refs below `refs/expmgr/` that hold event logs, and what they do not hold yet."""

#: This clone's logs.
OWN = "refs/expmgr/log/"
#: Other people's logs, as `<remote>/log/<writer>`.
REMOTES = "refs/expmgr/remotes/"
#: Pins of commits whose runs are not in the log yet.
KEEP = "refs/expmgr/keep/"


def keep_ref(run_id: str) -> str:
    """The ref that pins the commit of a run."""
    return f"{KEEP}{run_id}"
