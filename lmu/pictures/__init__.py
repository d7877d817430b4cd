"""Drawings of memories, trained networks and results."""

from lmu.pictures.capacity import draw_capacity as draw_capacity
from lmu.pictures.prediction import draw_prediction as draw_prediction
from lmu.pictures.sizes import draw_sizes as draw_sizes
from lmu.pictures.window import draw_window as draw_window
