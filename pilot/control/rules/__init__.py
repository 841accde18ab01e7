"""The rules by which a job is ended before its time: pure functions of samples and settings, without a clock."""
