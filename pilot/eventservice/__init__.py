"""The event service: a payload is given its events piece by piece, and tells of each piece what became of it."""
