"""The pilot: asks a PanDA dispatcher for jobs, runs them on a worker node and reports back."""

__version__ = "0.1.0"
