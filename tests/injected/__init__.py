"""The table of injected faults (promise U1): each with its code, who is to blame, and what is said of it.

tests/integration/payload/test_injected.py injects every one with real pilots; docs/errors.md shows the table.
"""
