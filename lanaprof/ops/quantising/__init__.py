"""Modules in int8: where they are quantised, by which scales, and how that is computed while they are trained.

Imports of what needs torch go to the modules themselves: ``grids`` alone needs none.
"""

from lanaprof.ops.quantising.grids import GRIDS, QUANTISED, Grid, get_grid

__all__ = ["GRIDS", "QUANTISED", "Grid", "get_grid"]
