"""What a spec names as data: tables, files, URLs, and where they are on this machine. No TensorFlow."""
