"""A payload of the event service: its messages, where its event ranges come from, and its process."""
