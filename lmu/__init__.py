"""The Legendre Memory Unit, trained in parallel and run step by step."""

from lmu import initializers as initializers
from lmu import layers as layers
from lmu._clash import warn_of_clash as _warn_of_clash
from lmu._moved import find_moved as _find_moved
from lmu.cell import LMUCell as LMUCell
from lmu.derive import derive as derive
from lmu.initializers import Initializers as Initializers
from lmu.keras import from_keras as from_keras
from lmu.layers import LMU as LMU
from lmu.layers import Bidirectional as Bidirectional
from lmu.layers import LMUFormer as LMUFormer
from lmu.layers import ParallelLMU as ParallelLMU
from lmu.legendre import decoder as decoder
from lmu.legendre import delay_system as delay_system
from lmu.memory import LegendreMemory as LegendreMemory

__all__ = [
    "LMU",
    "Bidirectional",
    "Initializers",
    "LMUCell",
    "LMUFormer",
    "LegendreMemory",
    "ParallelLMU",
    "decoder",
    "delay_system",
    "derive",
    "from_keras",
]

_warn_of_clash()
_find_moved()
