"""Modules that own tensors and build a recurrence from them in every call."""

from linrec.nn.blocks import FeedForward as FeedForward
from linrec.nn.blocks import Gated as Gated
from linrec.nn.blocks import Highway as Highway
from linrec.nn.blocks import Residual as Residual
from linrec.nn.blocks import residual_blocks as residual_blocks
from linrec.nn.delta_net import DeltaNet as DeltaNet
from linrec.nn.delta_net import GatedDeltaNet as GatedDeltaNet
from linrec.nn.ema import EMA as EMA
from linrec.nn.layer import Layer as Layer
from linrec.nn.linear_attention import GatedLinearAttention as GatedLinearAttention
from linrec.nn.linear_attention import Retention as Retention
from linrec.nn.linoss import LinOSS as LinOSS
from linrec.nn.lru import LRU as LRU
from linrec.nn.min_rnn import MinGRU as MinGRU
from linrec.nn.min_rnn import MinLSTM as MinLSTM
from linrec.nn.min_rnn import positive_map as positive_map
from linrec.nn.online import OnlineLayer as OnlineLayer
from linrec.nn.online import OnlineState as OnlineState
from linrec.nn.outputs import Outputs as Outputs
from linrec.nn.plans import PlanCache as PlanCache
from linrec.nn.pretrained import Pretrained as Pretrained
from linrec.nn.recurrence import Recurrence as Recurrence
from linrec.nn.recurrent import RecurrentLayer as RecurrentLayer
from linrec.nn.s4d import S4D as S4D
from linrec.nn.s5 import S5 as S5
from linrec.nn.sampled import SampledSystem as SampledSystem
from linrec.nn.selective_ssm import SelectiveSSM as SelectiveSSM
from linrec.nn.ssd import SSD as SSD
from linrec.nn.stack import Stack as Stack
from linrec.nn.token_shift import TokenShift as TokenShift

__all__ = [
    "EMA",
    "LRU",
    "S4D",
    "S5",
    "SSD",
    "DeltaNet",
    "GatedDeltaNet",
    "GatedLinearAttention",
    "Layer",
    "LinOSS",
    "MinGRU",
    "MinLSTM",
    "OnlineLayer",
    "Outputs",
    "Recurrence",
    "RecurrentLayer",
    "Retention",
    "SampledSystem",
    "SelectiveSSM",
    "Stack",
    "residual_blocks",
]

PlanKeeper = PlanCache  # its earlier name
