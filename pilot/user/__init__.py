"""What is particular to one experiment; generic is the default and the fallback."""
