"""Layers of sequences, all with one interface: all steps, the last step, one step."""

from linrec.nn import FeedForward as FeedForward
from linrec.nn import Gated as Gated
from linrec.nn import Highway as Highway
from linrec.nn import Layer as Layer
from linrec.nn import Residual as Residual
from linrec.nn import Stack as Stack
from linrec.nn import TokenShift as TokenShift
from lmu.layers.bidirectional import Bidirectional as Bidirectional
from lmu.layers.blocks import Encoder as Encoder
from lmu.layers.blocks import MemoryFeedForward as MemoryFeedForward
from lmu.layers.blocks import memory_blocks as memory_blocks
from lmu.layers.blocks import window_blocks as window_blocks
from lmu.layers.convolution import CausalConvolution as CausalConvolution
from lmu.layers.gru import GRU as GRU
from lmu.layers.lmu import LMU as LMU
from lmu.layers.lmu import Parallelism as Parallelism
from lmu.layers.lmuformer import LMUFormer as LMUFormer
from lmu.layers.lmuformer import LMUFormerBlock as LMUFormerBlock
from lmu.layers.lmuformer import PatchEmbedding as PatchEmbedding
from lmu.layers.lstm import LSTM as LSTM
from lmu.layers.parallel_lmu import ParallelLMU as ParallelLMU
from lmu.layers.scalar_mix import ScalarMix as ScalarMix
from lmu.layers.spiking import SpikingLMUFormer as SpikingLMUFormer
from lmu.layers.spiking import SpikingNeurons as SpikingNeurons
