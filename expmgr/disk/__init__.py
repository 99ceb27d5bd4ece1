"""Bytes on a disk: files that appear whole, locks with fencing, and the cache that nothing hangs on."""
