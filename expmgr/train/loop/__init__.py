"""Steps on the device, and what is due when."""
