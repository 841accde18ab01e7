"""Executors: how a payload is run."""
