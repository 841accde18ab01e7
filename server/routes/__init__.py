"""HTTP: decode, call logic, encode. Nothing is decided here."""
