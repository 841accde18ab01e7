"""`pilotkit demo`: a chain of jobs through a server, pilots and storage of its own; payloads/ is what the jobs run."""
