"""One module a transfer tool, one contract (pilot.copytool.common)."""
