"""Discretisation: from continuous to discrete time."""

from linrec.discretization.discretize import discretize as discretize
from linrec.discretization.discretize import implicitness as implicitness
