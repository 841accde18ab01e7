"""Hooks for the Argonne Leadership Computing Facility: its wrapper has set up all that a payload needs."""

from __future__ import annotations

from pilot.resource.generic import get_setup as get_setup
