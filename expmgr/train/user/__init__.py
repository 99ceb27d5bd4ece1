"""The user's code: found, called, and its errors reported with the user's own lines."""
