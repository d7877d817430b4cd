"""The data sets of the experiments, one file each."""

from lmu.data.copying import selective_copying as selective_copying
from lmu.data.delays import band_limited_noise as band_limited_noise
from lmu.data.delays import delay_steps as delay_steps
from lmu.data.delays import delayed_noise as delayed_noise
from lmu.data.files import DataFile as DataFile
from lmu.data.files import read as read
from lmu.data.glove import glove_vocabulary as glove_vocabulary
from lmu.data.imdb import imdb_reviews as imdb_reviews
from lmu.data.iwslt15 import iwslt15 as iwslt15
from lmu.data.mackey_glass import mackey_glass as mackey_glass
from lmu.data.mnist import permuted_mnist as permuted_mnist
from lmu.data.pairs import sentence_pairs as sentence_pairs
from lmu.data.splits import Dataset as Dataset
from lmu.data.splits import Split as Split
from lmu.data.text8 import text8 as text8
from lmu.data.vocabulary import Vocabulary as Vocabulary
