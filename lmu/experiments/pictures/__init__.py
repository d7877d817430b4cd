"""Drawings of memories, trained networks and results."""

from lmu.experiments.pictures.capacity import draw_capacity as draw_capacity
from lmu.experiments.pictures.prediction import draw_prediction as draw_prediction
from lmu.experiments.pictures.scaling import draw_scaling as draw_scaling
from lmu.experiments.pictures.sizes import draw_sizes as draw_sizes
from lmu.experiments.pictures.window import draw_window as draw_window
