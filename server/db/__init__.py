"""The database: tables and small atomic functions named by verbs. Nothing here decides anything."""
