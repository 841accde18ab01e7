"""What everything else stands on: the error table and the exceptions. Imports nothing but the standard library."""
