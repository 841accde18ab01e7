"""Queue, storage, job and file descriptions: the outside schema is translated here and nowhere else."""
