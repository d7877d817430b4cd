"""What can be looked at: drawings of memories, of trained networks and of results."""

from lmu.pictures.capacity import draw_capacity as draw_capacity
from lmu.pictures.prediction import draw_prediction as draw_prediction
from lmu.pictures.sizes import draw_sizes as draw_sizes
from lmu.pictures.window import draw_window as draw_window
