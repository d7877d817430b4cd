"""The data sets of the experiments, one file each."""

from lmu.experiments.data.copying import drop_blanks as drop_blanks
from lmu.experiments.data.copying import selective_copying as selective_copying
from lmu.experiments.data.delays import band_limited_noise as band_limited_noise
from lmu.experiments.data.delays import delay_steps as delay_steps
from lmu.experiments.data.delays import delayed_noise as delayed_noise
from lmu.experiments.data.files import DataFile as DataFile
from lmu.experiments.data.files import read as read
from lmu.experiments.data.glove import glove_vocabulary as glove_vocabulary
from lmu.experiments.data.imdb import imdb_reviews as imdb_reviews
from lmu.experiments.data.iwslt15 import iwslt15 as iwslt15
from lmu.experiments.data.lost import lose_samples as lose_samples
from lmu.experiments.data.mackey_glass import mackey_glass as mackey_glass
from lmu.experiments.data.mnist import permuted_mnist as permuted_mnist
from lmu.experiments.data.pairs import sentence_pairs as sentence_pairs
from lmu.experiments.data.speech import speech_commands as speech_commands
from lmu.experiments.data.speech import spoken_digits as spoken_digits
from lmu.experiments.data.splits import Dataset as Dataset
from lmu.experiments.data.splits import Split as Split
from lmu.experiments.data.streams import sparse_mackey_glass as sparse_mackey_glass
from lmu.experiments.data.streams import speech_samples as speech_samples
from lmu.experiments.data.text8 import text8 as text8
from lmu.experiments.data.vocabulary import Vocabulary as Vocabulary
