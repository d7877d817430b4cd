"""The Legendre Memory Unit, trained in parallel and run step by step."""

from lmu.layers import ParallelLMU as ParallelLMU
from lmu.legendre import decoder as decoder
from lmu.legendre import delay_system as delay_system
from lmu.memory import LegendreMemory as LegendreMemory
