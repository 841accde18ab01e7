"""The daemon: runs the periodic scripts in a few processes of its own."""
