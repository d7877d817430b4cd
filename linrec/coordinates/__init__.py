"""Changes of a system's state coordinates: to any, to contracting or to balanced ones."""

from linrec.coordinates.balancing import BalancedRealization as BalancedRealization
from linrec.coordinates.balancing import balanced_realization as balanced_realization
from linrec.coordinates.similarity import HARMLESS as HARMLESS
from linrec.coordinates.similarity import Coordinates as Coordinates
from linrec.coordinates.similarity import apply_to_columns as apply_to_columns
from linrec.coordinates.similarity import better_coordinates as better_coordinates
from linrec.coordinates.similarity import contracting_coordinates as contracting_coordinates
from linrec.coordinates.similarity import similarity_transform as similarity_transform
from linrec.coordinates.similarity import take_powers as take_powers
