"""The scripts. Each has `run(context, arguments) -> bool`, True if there is more to do at once."""
