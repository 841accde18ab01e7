"""Workflows: the wiring of queues and controllers, and one ordered shutdown."""
