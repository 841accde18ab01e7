"""Fits to what was measured of a payload: the slope of its memory against time tells whether it leaks.

The names are those of chapter 7.3.2 of PanDA's documents, which experiment plugins use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pilot.api.services import Services
from pilot.common.errorcodes import ErrorCodes
from pilot.common.exception import NotDefined, NotSameLength, PilotException, UnknownException
from pilot.util import math
from pilot.util.tables import get_table_from_file

# How many samples "tails" are at either end, and how many a line needs at least: a program that only just started
# always grows, and three points lie on a line too easily.
_TAILS = 5
_FEWEST = 5

Column = Sequence[float]
Table = Mapping[str, Sequence["float | str"]]


class Fit:
    """A line through points, by least squares: y(x) = slope * x + intersect."""

    def __init__(self, *, x: Column | None = None, y: Column | None = None, model: str = "linear") -> None:
        """Take and fit the points.

        Raises PilotException: NOTIMPLEMENTED for any model but linear, NOTDEFINED without data or when all x are the
        same, NOTSAMELENGTH.
        """
        if model != "linear":
            raise PilotException(f"there is no model '{model}', only linear", code=ErrorCodes.NOTIMPLEMENTED)
        if not x or not y:
            raise NotDefined("a fit needs data for x and y")
        if len(x) != len(y):
            raise NotSameLength(f"a fit needs as many x as y, but there are {len(x)} and {len(y)}")
        self._x, self._y = x, y
        self._xm, self._ym = math.mean(x), math.mean(y)
        self._ss, self._ss2 = math.sum_square_dev(x), math.sum_dev(x, y)
        if self._ss == 0:
            raise NotDefined("a fit needs points at different x")
        self.set_slope()
        self.set_intersect()
        self.set_chi2()

    def fit(self) -> Fit:
        """This object, fitted."""
        return self

    def value(self, t: float) -> float:
        """y at x = t."""
        return self._slope * t + self._intersect

    def set_slope(self) -> None:
        """Calculate the slope."""
        self._slope = self._ss2 / self._ss

    def set_intersect(self) -> None:
        """Calculate the intersect."""
        self._intersect = self._ym - self._slope * self._xm

    def set_chi2(self) -> None:
        """Calculate chi2."""
        self._chi2 = math.chi2(self._y, [self.value(x) for x in self._x])

    def slope(self) -> float:
        """y per x."""
        return self._slope

    def intersect(self) -> float:
        """y at x = 0."""
        return self._intersect

    def chi2(self) -> float:
        """Sum over the points of (y - fitted y)² / fitted y."""
        return self._chi2


class Analytics(Services):
    """Tables of measurements, and fits to their columns."""

    def __init__(self) -> None:
        """Begin without a fit."""
        super().__init__()
        self._fit: Fit | None = None

    def fit(self, x: Column, y: Column, model: str = "linear") -> Fit:
        """Fit a model to points. Raises UnknownException when it cannot be fitted."""
        try:
            self._fit = Fit(x=x, y=y, model=model)
        except PilotException as exc:
            raise UnknownException(f"no fit: {exc.diag}") from exc
        return self._fit

    def slope(self) -> float:
        """Slope of the fit. Raises NotDefined without one."""
        return self._fitted().slope()

    def intersect(self) -> float:
        """Intersect of the fit. Raises NotDefined without one."""
        return self._fitted().intersect()

    def chi2(self) -> float:
        """chi2 of the fit. Raises NotDefined without one."""
        return self._fitted().chi2()

    def _fitted(self) -> Fit:
        if self._fit is None:
            raise NotDefined("there is no fit yet")
        return self._fit

    def get_table(
        self, filename: str, header: str | None = None, separator: str = "\t", convert_to_float: bool = True
    ) -> dict[str, list[float | str]]:
        """Read a table, as pilot.util.tables.get_table_from_file does."""
        return get_table_from_file(filename, header, separator, convert_to_float)

    def extract_from_table(self, table: Table, x_name: str, y_name: str) -> tuple[list[float], list[float]]:
        """Two columns as x and y. y_name may be a sum of columns: "pss+swap". Raises NotDefined for an unknown one."""
        names = y_name.split("+")
        missing = [name for name in (x_name, *names) if name not in table]
        if missing:
            raise NotDefined(f"the table has no column {', '.join(missing)}")
        x = [float(value) for value in table[x_name]]
        y = [sum(float(value) for value in values) for values in zip(*(table[name] for name in names))]
        return x, y

    def get_fitted_data(
        self, filename: str, x_name: str = "Time", y_name: str = "pss+swap", precision: int = 2, tails: bool = True
    ) -> dict[str, str]:
        """Fit one column against another in a memory monitor's table: {"slope": ..., "chi2": ...}, as rounded texts.

        tails: take the first and last values too. Empty when there are too few samples for a line, or no table.
        """
        try:
            x, y = self.extract_from_table(self.get_table(filename), x_name, y_name)
            if not tails:
                x, y = x[_TAILS:-_TAILS], y[_TAILS:-_TAILS]
            if len(x) < _FEWEST:
                return {}
            self.fit(x, y)
            return {
                "slope": math.float_to_rounded_string(self.slope(), precision),
                "chi2": math.float_to_rounded_string(self.chi2(), precision),
            }
        except PilotException:
            return {}
