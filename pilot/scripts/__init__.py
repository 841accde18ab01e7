"""Stage-in and stage-out as programs: python -m pilot.scripts.stagein, python -m pilot.scripts.stageout."""
