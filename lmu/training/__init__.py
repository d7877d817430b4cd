"""Training a network: it knows no experiment."""

from lmu.training.loop import Outcome as Outcome
from lmu.training.loop import predictions as predictions
from lmu.training.loop import train as train
from lmu.training.recipe import ACCURACY as ACCURACY
from lmu.training.recipe import NRMSE as NRMSE
from lmu.training.recipe import Metric as Metric
from lmu.training.recipe import Recipe as Recipe
from lmu.training.run_folder import BEST as BEST
from lmu.training.run_folder import RESULT as RESULT
from lmu.training.run_folder import RunFolder as RunFolder
from lmu.training.run_folder import write as write
