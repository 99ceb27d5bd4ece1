"""The Python API: `expmgr.open`, `fit`, `save`, `restore`; what `list` and `show` print, as data."""
