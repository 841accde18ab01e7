"""The Z resonance: its line shape, for the generator to draw from and for the fit to compare with."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Array = npt.NDArray[np.float64]

# GeV; Particle Data Group, Review of Particle Physics 2024, gauge and Higgs bosons
Z_MASS: Final = 91.1880
Z_WIDTH: Final = 2.4955
MUON_MASS: Final = 0.1056583755

# GeV; what is generated: wide enough that the fit range (fit.py) does not see the edges through the resolution
MASS_RANGE: Final = (50.0, 130.0)
# GeV; the grid on which the shape is tabulated: fine against the width (2.5) and the resolution (0.8)
GRID_STEP: Final = 0.05


def mass_grid() -> Array:
    """The masses (GeV) at which the shape is tabulated."""
    low, high = MASS_RANGE
    return np.linspace(low, high, round((high - low) / GRID_STEP) + 1)


def breit_wigner(mass: Array, pole: float, width: float = Z_WIDTH) -> Array:
    """Relativistic Breit-Wigner with the s-dependent width in which the Z mass is defined, as a density in mass.

    mass, pole and width in GeV; not normalised. In s it is 1 / ((s - M²)² + s² Γ² / M²); 2m is ds/dm.
    """
    s = mass * mass
    return np.asarray(2.0 * mass / ((s - pole * pole) ** 2 + (s * width / pole) ** 2))


def cumulative(density: Array) -> Array:
    """The normalised integral of a tabulated density up to each grid point (trapezoids), from 0 to 1."""
    steps = np.concatenate(([0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))))
    return np.asarray(steps / steps[-1])


def draw_masses(random: np.random.Generator, count: int) -> Array:
    """That many masses (GeV), drawn from the line shape by inverting its integral."""
    grid = mass_grid()
    return np.interp(random.random(count), cumulative(breit_wigner(grid, Z_MASS)), grid)


def smeared_cumulative(edges: Array, pole: float, resolution: float, slope: float) -> Array:
    """The fraction of events measured below each edge (GeV).

    resolution: Gaussian, relative to the mass, as momentum resolution makes it. slope: the acceptance of the detector
    grows with the mass; times (1 + slope (m - M) / M) describes that across the peak.
    """
    grid = mass_grid()
    density = breit_wigner(grid, pole) * (1.0 + slope * (grid - pole) / pole)
    return np.asarray(ndtr((edges[:, np.newaxis] - grid) / (resolution * grid)) @ (density / density.sum()))
