"""What clones share through a git remote: events, records and variants, signed if the team wants."""
