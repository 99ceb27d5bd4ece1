"""`expmgr review`: a decision whether a variant is merged. One file per kind of command."""
