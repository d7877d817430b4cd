"""The networks of the papers."""

from lmu.models.classifier import SequenceClassifier as SequenceClassifier
from lmu.models.network import Network as Network
from lmu.models.predictor import SeriesPredictor as SeriesPredictor
