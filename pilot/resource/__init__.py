"""What is particular to one machine: `--hpc-resource NAME` takes the hooks of NAME.py in here, generic has the rest."""
