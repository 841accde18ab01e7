"""The generic experiment: no assumptions beyond a transformation and its parameters."""
