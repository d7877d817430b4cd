"""Layers of sequences, all with one interface: all steps, the last step, one step."""

from lmu.layers.bidirectional import Bidirectional as Bidirectional
from lmu.layers.blocks import Encoder as Encoder
from lmu.layers.blocks import FeedForward as FeedForward
from lmu.layers.blocks import Highway as Highway
from lmu.layers.blocks import Residual as Residual
from lmu.layers.blocks import window_blocks as window_blocks
from lmu.layers.layer import Layer as Layer
from lmu.layers.lstm import LSTM as LSTM
from lmu.layers.parallel import ParallelLMU as ParallelLMU
from lmu.layers.recurrent import LMU as LMU
from lmu.layers.recurrent import Form as Form
from lmu.layers.stack import DeepRepresentation as DeepRepresentation
from lmu.layers.stack import Stack as Stack
