"""Modules in int8 and fp8: where they are quantised, by which scales, and how that is computed while they are trained.

Imports of what needs torch go to the modules themselves: ``grids`` alone needs none.
"""

from lanaprof.ops.quantising.grids import FP8_HIGH, GRIDS, QUANTISED, Grid, get_grid, grid_at

__all__ = ["FP8_HIGH", "GRIDS", "QUANTISED", "Grid", "get_grid", "grid_at"]
