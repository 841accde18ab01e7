"""The four controllers and what they share."""
