"""The Python API: `expmgr.open`, `compare`, `fit`, `params`, `seed`, `save` and `restore`."""
