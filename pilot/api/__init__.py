"""What can be used from outside a pilot."""
