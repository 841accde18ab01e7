"""An example of an experiment plugin; docs/plugins.md says how a pilot finds it."""
