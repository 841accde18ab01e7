"""Programs that move files with a library: each runs in a process of its own, file after file (see `channel`)."""
