"""Fit the dimuon mass of the events in some ROOT files: `python -m payloads.fit a.root,b.root --name zmass`.

Writes <name>.root (the histogram), <name>.json (histogram and fit result) and <name>.png (the plot). The model is the
Breit-Wigner of the Z with its width fixed, times a slope of the acceptance, convolved with a Gaussian resolution that
grows with the mass; free are the yield, the mass, the resolution and the slope. Extended binned maximum likelihood.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import uproot
from iminuit import Minuit
from iminuit.cost import ExtendedBinnedNLL

from .generate import TREE
from .lineshape import MUON_MASS, Z_MASS, Z_WIDTH, Array, smeared_cumulative

# GeV: the peak with enough of both flanks; bins fine against the resolution's effect on the peak
FIT_RANGE: Final = (76.0, 106.0)
BIN_WIDTH: Final = 0.5


@dataclass(frozen=True)
class FitResult:
    """What came out of the fit; masses and widths in GeV, the resolution relative to the mass."""

    mass: float
    mass_error: float
    resolution: float
    resolution_error: float
    slope: float
    slope_error: float
    events: float
    events_error: float
    chi2: float
    degrees_of_freedom: int
    reference_mass: float = Z_MASS
    reference_width: float = Z_WIDTH


def four_momentum(pt: Array, eta: Array, phi: Array) -> Array:
    """(E, px, py, pz) in GeV of muons from pT (GeV), η and φ (rad)."""
    momentum = pt * np.cosh(eta)
    return np.array([np.hypot(momentum, MUON_MASS), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)])


def dimuon_mass(path: str) -> Array:
    """The invariant mass (GeV) of each event in a file."""
    with uproot.open(path) as file:
        columns = file[TREE].arrays(library="np")
    minus, plus = (
        four_momentum(columns[f"mu_{sign}_pt"], columns[f"mu_{sign}_eta"], columns[f"mu_{sign}_phi"])
        for sign in ("minus", "plus")
    )
    total = minus + plus
    return np.asarray(np.sqrt(np.maximum(total[0] ** 2 - (total[1:] ** 2).sum(axis=0), 0.0)))


def expected(edges: Array, events: float, mass: float, resolution: float, slope: float) -> Array:
    """The model: events below each edge; `events` counts those inside the fit range."""
    fractions = smeared_cumulative(edges, mass, resolution, slope)
    low, high = smeared_cumulative(np.array(FIT_RANGE), mass, resolution, slope)
    return np.asarray(events * (fractions - low) / (high - low))


def fit(counts: Array, edges: Array) -> FitResult:
    """Fit the model to a histogram. Raises ValueError when there are too few events or the fit does not converge."""
    if counts.sum() < 100:
        raise ValueError(
            f"only {counts.sum():.0f} events between {FIT_RANGE[0]} and {FIT_RANGE[1]} GeV, too few to fit"
        )
    cost = ExtendedBinnedNLL(counts, edges, expected)
    start = {"events": float(counts.sum()), "mass": float(edges[counts.argmax()]), "resolution": 0.01, "slope": 0.0}
    minuit = Minuit(cost, **start)
    minuit.limits["events"] = (1.0, None)
    minuit.limits["mass"] = (85.0, 97.0)
    minuit.limits["resolution"] = (0.002, 0.05)
    minuit.limits["slope"] = (-2.0, 2.0)  # beyond, the density would be negative inside the generated range
    minuit.migrad()
    minuit.hesse()
    if not minuit.valid or not minuit.accurate:
        raise ValueError(f"the fit did not converge:\n{minuit.fmin}")
    values, errors = minuit.values, minuit.errors
    return FitResult(
        mass=values["mass"],
        mass_error=errors["mass"],
        resolution=values["resolution"],
        resolution_error=errors["resolution"],
        slope=values["slope"],
        slope_error=errors["slope"],
        events=values["events"],
        events_error=errors["events"],
        chi2=float(minuit.fval),
        degrees_of_freedom=len(counts) - minuit.nfit,
    )


def write(name: str, counts: Array, edges: Array, result: FitResult) -> None:
    """Write histogram (ROOT, JSON) and plot (PNG)."""
    from .plot import draw

    with uproot.recreate(f"{name}.root") as file:
        file["dimuon_mass"] = (counts, edges)
    histogram = {"edges": edges.tolist(), "counts": counts.tolist(), "unit": "GeV", "variable": "dimuon mass"}
    document = {"histogram": histogram, "fit": asdict(result)}
    Path(f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    fine = np.linspace(*FIT_RANGE, 601)
    parameters = (result.events, result.mass, result.resolution, result.slope)
    curve = np.diff(expected(fine, *parameters)) / np.diff(fine) * BIN_WIDTH
    draw(
        f"{name}.png",
        counts,
        edges,
        np.diff(expected(edges, *parameters)),
        (0.5 * (fine[1:] + fine[:-1]), curve),
        [
            rf"$m_Z$ = {result.mass:.3f} ± {result.mass_error:.3f} GeV",
            rf"(PDG: {Z_MASS:.3f} GeV)",
            rf"$\Gamma_Z$ = {Z_WIDTH:.4f} GeV (fixed)",
            rf"$\sigma/m$ = {100 * result.resolution:.2f} ± {100 * result.resolution_error:.2f} %",
            rf"$\chi^2$/ndf = {result.chi2:.1f}/{result.degrees_of_freedom}",
        ],
    )


def main() -> int:
    """Fit the files given on the command line; 0, or 1 when there is nothing sensible to fit."""
    parser = argparse.ArgumentParser(description="Fit the dimuon mass of Z -> mu mu events.")
    parser.add_argument("inputs", help="ROOT files of payloads.generate, separated by commas")
    parser.add_argument("--name", default="zmass", help="name of the files to write, without ending")
    arguments = parser.parse_args()
    masses = np.concatenate([dimuon_mass(path) for path in arguments.inputs.split(",")])
    edges = np.linspace(*FIT_RANGE, round((FIT_RANGE[1] - FIT_RANGE[0]) / BIN_WIDTH) + 1)
    counts = np.histogram(masses, edges)[0].astype(float)
    try:
        result = fit(counts, edges)
    except ValueError as error:
        print(f"payloads.fit: {error}", file=sys.stderr)
        return 1
    write(arguments.name, counts, edges, result)
    print(f"m_Z = {result.mass:.4f} +- {result.mass_error:.4f} GeV from {counts.sum():.0f} events", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
