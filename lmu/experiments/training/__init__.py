"""Training of networks, independent of the experiments."""

from lmu.experiments.training.allocation import keep_memory as keep_memory
from lmu.experiments.training.loop import Outcome as Outcome
from lmu.experiments.training.loop import predictions as predictions
from lmu.experiments.training.loop import train as train
from lmu.experiments.training.recipe import ACCURACY as ACCURACY
from lmu.experiments.training.recipe import NRMSE as NRMSE
from lmu.experiments.training.recipe import Metric as Metric
from lmu.experiments.training.recipe import Recipe as Recipe
from lmu.experiments.training.run_folder import BEST as BEST
from lmu.experiments.training.run_folder import RESULT as RESULT
from lmu.experiments.training.run_folder import RunFolder as RunFolder
from lmu.experiments.training.run_folder import write as write
from lmu.experiments.training.subnormals import flush_subnormals as flush_subnormals
