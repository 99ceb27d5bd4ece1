"""What clones send one another: published, signed, fetched, received."""
