"""Generate Z → μμ events: `python -m payloads.generate --events 5000 --seed 1 events.root` writes a ROOT file.

A toy, but with the ingredients of a real one: relativistic Breit-Wigner mass, a transverse momentum and rapidity as at
the LHC, the 1 + cos²θ decay of a spin-1 particle, acceptance of a detector, its momentum and angle resolution.
"""

from __future__ import annotations

import argparse
from typing import Final

import numpy as np
import uproot

from .lineshape import MUON_MASS, Array, draw_masses

# The Z in the laboratory. dN/dpT² ∝ (1 + pT²/PT_SCALE²)^-PT_POWER peaks at a few GeV with a tail; rapidity is a bell.
PT_SCALE: Final = 9.0  # GeV
PT_POWER: Final = 2.0
RAPIDITY_WIDTH: Final = 1.4

# What the detector sees and how well, typical of an LHC experiment.
MAX_ETA: Final = 2.5
MIN_PT: Final = 20.0  # GeV
PT_RESOLUTION_CONSTANT: Final = 0.012  # relative: multiple scattering
PT_RESOLUTION_SLOPE: Final = 1.0e-4  # relative, per GeV: curvature measurement
ANGLE_RESOLUTION: Final = 5.0e-4  # in η, and in φ (rad)

TREE: Final = "events"


def draw_cos_theta(random: np.random.Generator, count: int) -> Array:
    """cos θ of the negative muon from 1 + cos²θ: the root of x³ + 3x + 4 - 8u = 0, by Cardano's formula."""
    half = 4.0 * random.random(count) - 2.0
    root = np.sqrt(half * half + 1.0)
    return np.cbrt(half + root) + np.cbrt(half - root)


def draw_z(random: np.random.Generator, mass: Array) -> Array:
    """Four-momenta (E, px, py, pz; GeV) of Z bosons of these masses in the laboratory, one a column."""
    count = len(mass)
    pt = PT_SCALE * np.sqrt((1.0 - random.random(count)) ** (-1.0 / (PT_POWER - 1.0)) - 1.0)
    phi = random.uniform(-np.pi, np.pi, count)
    rapidity = random.normal(0.0, RAPIDITY_WIDTH, count)
    transverse_mass = np.hypot(mass, pt)
    return np.array(
        [transverse_mass * np.cosh(rapidity), pt * np.cos(phi), pt * np.sin(phi), transverse_mass * np.sinh(rapidity)]
    )


def boost(rest: Array, frame: Array, mass: Array) -> Array:
    """Take four-momenta from the rest frame of a particle (four-momenta `frame`, `mass`) to the laboratory."""
    along = (rest[1:] * frame[1:]).sum(axis=0)
    energy = (rest[0] * frame[0] + along) / mass
    momentum = rest[1:] + frame[1:] * ((along / (frame[0] + mass) + rest[0]) / mass)
    return np.vstack([energy, momentum])


def decay(random: np.random.Generator, z: Array, mass: Array) -> tuple[Array, Array]:
    """Four-momenta (GeV) of the two muons of each Z in the laboratory: the negative one, the positive one."""
    cos_theta = draw_cos_theta(random, len(mass))
    sin_theta = np.sqrt(1.0 - cos_theta * cos_theta)
    phi = random.uniform(-np.pi, np.pi, len(mass))
    energy = 0.5 * mass
    momentum = np.sqrt(energy * energy - MUON_MASS**2)
    direction = momentum * np.array([sin_theta * np.cos(phi), sin_theta * np.sin(phi), cos_theta])
    negative = boost(np.vstack([energy, direction]), z, mass)
    positive = boost(np.vstack([energy, -direction]), z, mass)
    return negative, positive


def measure(random: np.random.Generator, muon: Array) -> tuple[Array, Array, Array]:
    """pT (GeV), η and φ (rad) of muons as the detector measures them."""
    pt = np.hypot(muon[1], muon[2])
    count = len(pt)
    resolution = np.hypot(PT_RESOLUTION_CONSTANT, PT_RESOLUTION_SLOPE * pt)
    return (
        pt * (1.0 + resolution * random.standard_normal(count)),
        np.arcsinh(muon[3] / pt) + ANGLE_RESOLUTION * random.standard_normal(count),
        np.arctan2(muon[2], muon[1]) + ANGLE_RESOLUTION * random.standard_normal(count),
    )


def generate(count: int, seed: int) -> dict[str, Array]:
    """`count` events inside the acceptance, as named columns; the same seed gives the same events."""
    random = np.random.default_rng(seed)
    parts: list[dict[str, Array]] = []
    found = 0
    while found < count:
        mass = draw_masses(random, 2 * count)  # about 45 % of the events are inside the acceptance
        muons = decay(random, draw_z(random, mass), mass)
        columns: dict[str, Array] = {"z_mass_true": mass}
        for sign, muon in zip(("minus", "plus"), muons):
            pt, eta, phi = measure(random, muon)
            columns |= {f"mu_{sign}_pt": pt, f"mu_{sign}_eta": eta, f"mu_{sign}_phi": phi}
        seen = np.ones(len(mass), dtype=bool)
        for sign in ("minus", "plus"):
            seen &= (columns[f"mu_{sign}_pt"] > MIN_PT) & (np.abs(columns[f"mu_{sign}_eta"]) < MAX_ETA)
        parts.append({name: column[seen] for name, column in columns.items()})
        found += int(seen.sum())
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def main() -> None:
    """Write the events asked for on the command line."""
    parser = argparse.ArgumentParser(description="Generate Z -> mu mu events into a ROOT file.")
    parser.add_argument("--events", type=int, default=5000, help="events inside the acceptance")
    parser.add_argument("--seed", type=int, default=1, help="a job's own number: the same gives the same events")
    parser.add_argument("output", help="the ROOT file to write")
    arguments = parser.parse_args()
    events = generate(arguments.events, arguments.seed)
    with uproot.recreate(arguments.output) as file:
        tree = file.mktree(TREE, {name: column.dtype for name, column in events.items()}, title="Z to mu mu")
        tree.extend(events)
    print(f"{arguments.output}: {arguments.events} events, seed {arguments.seed}", flush=True)


if __name__ == "__main__":
    main()
