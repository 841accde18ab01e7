"""The plot of the demo: data with errors, fitted curve, residuals below, in the manner of the field."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np

from .lineshape import Array

matplotlib.use("Agg")  # a worker node has no display
from matplotlib import pyplot
from matplotlib.axes import Axes


def set_ticks(axes: Axes) -> None:
    """Ticks inside and on all sides, as plots of the field have them."""
    axes.minorticks_on()
    axes.tick_params(which="both", direction="in", top=True, right=True)
    axes.tick_params(which="major", length=9)
    axes.tick_params(which="minor", length=4.5)


def draw(
    path: str, counts: Array, edges: Array, expected: Array, curve: tuple[Array, Array], notes: Sequence[str]
) -> None:
    """Draw a histogram of masses (GeV) with its fit into a PNG file.

    expected: the fitted model in each bin; curve: masses and the model there, in events a bin; notes: lines of text.
    """
    centres = 0.5 * (edges[1:] + edges[:-1])
    matplotlib.rc("font", size=13)
    figure, (top, bottom) = pyplot.subplots(
        2, 1, figsize=(8, 7.5), sharex=True, gridspec_kw={"height_ratios": [3, 1], "hspace": 0.05}
    )
    top.errorbar(centres, counts, yerr=np.sqrt(counts), fmt="ko", markersize=4, elinewidth=1.2, label="Simulated data")
    top.plot(*curve, color="#c8102e", linewidth=2, label="Breit-Wigner ⊗ Gaussian")
    top.set_ylabel(f"Events / {edges[1] - edges[0]:.1f} GeV", loc="top")
    top.set_ylim(0, 1.25 * float(np.max(counts + np.sqrt(counts))))
    top.set_xlim(edges[0], edges[-1])
    top.text(0.04, 0.93, "pilotkit demo", transform=top.transAxes, fontweight="bold", fontstyle="italic", va="top")
    top.text(0.04, 0.86, r"$Z \rightarrow \mu^+\mu^-$, toy simulation", transform=top.transAxes, va="top")
    for line, note in enumerate(notes):
        top.text(0.04, 0.77 - 0.062 * line, note, transform=top.transAxes, va="top", fontsize=11)
    top.legend(loc="upper right", frameon=False)
    pulls = (counts - expected) / np.sqrt(np.maximum(expected, 1.0))
    bottom.axhline(0.0, color="#c8102e", linewidth=2)
    bottom.errorbar(centres, pulls, yerr=np.ones_like(pulls), fmt="ko", markersize=4, elinewidth=1.2)
    bottom.set_ylim(-4.5, 4.5)
    bottom.set_ylabel("(Data - fit) / √fit")
    bottom.set_xlabel(r"$m_{\mu\mu}$ [GeV]", loc="right")
    for axes in (top, bottom):
        set_ticks(axes)
    figure.align_ylabels()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
