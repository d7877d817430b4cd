"""Modules that own tensors, and build a fresh recurrence of them in every call."""

from linrec.nn.ema import EMA as EMA
from linrec.nn.layer import Layer as Layer
from linrec.nn.lru import LRU as LRU
from linrec.nn.min_rnn import MinGRU as MinGRU
from linrec.nn.min_rnn import MinLSTM as MinLSTM
from linrec.nn.min_rnn import positive_map as positive_map
from linrec.nn.plans import PlanKeeper as PlanKeeper
from linrec.nn.recurrence import Recurrence as Recurrence
from linrec.nn.recurrent import RecurrentLayer as RecurrentLayer
