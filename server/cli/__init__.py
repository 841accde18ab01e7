"""The `pilotkit` command: one module a noun. It speaks HTTP to the server, like everybody else."""
