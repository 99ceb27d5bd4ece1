"""Reviews: a question about a merge, its evidence, what people say, where it stands, and the merge."""
