"""The networks of the papers."""

from lmu.experiments.models.attention import AttentionMemory as AttentionMemory
from lmu.experiments.models.attention import DotProductAttention as DotProductAttention
from lmu.experiments.models.baselines import BagOfPlaces as BagOfPlaces
from lmu.experiments.models.baselines import BagOfWords as BagOfWords
from lmu.experiments.models.baselines import DelayPolynomial as DelayPolynomial
from lmu.experiments.models.baselines import Pixels as Pixels
from lmu.experiments.models.beam_search import BeamSearch as BeamSearch
from lmu.experiments.models.deep_classifier import DeepClassifier as DeepClassifier
from lmu.experiments.models.delays import DelayReader as DelayReader
from lmu.experiments.models.frozen_memory import SequenceClassifier as SequenceClassifier
from lmu.experiments.models.frozen_memory import SeriesPredictor as SeriesPredictor
from lmu.experiments.models.language_model import LanguageModel as LanguageModel
from lmu.experiments.models.network import Network as Network
from lmu.experiments.models.network import SampleNetwork as SampleNetwork
from lmu.experiments.models.network import StreamingNetwork as StreamingNetwork
from lmu.experiments.models.ngrams import NGrams as NGrams
from lmu.experiments.models.online import OnlineReader as OnlineReader
from lmu.experiments.models.online import RecursiveLeastSquares as RecursiveLeastSquares
from lmu.experiments.models.readout import LayerClassifier as LayerClassifier
from lmu.experiments.models.readout import LayerPredictor as LayerPredictor
from lmu.experiments.models.text import PairClassifier as PairClassifier
from lmu.experiments.models.text import TextClassifier as TextClassifier
from lmu.experiments.models.text import TextReader as TextReader
from lmu.experiments.models.translator import Translator as Translator
from lmu.experiments.models.words import EncodedWords as EncodedWords
from lmu.experiments.models.words import Words as Words
