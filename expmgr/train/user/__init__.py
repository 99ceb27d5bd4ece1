"""Other people's code: found, called, and its errors put into words."""
