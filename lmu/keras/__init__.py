"""Layers from files of keras-lmu, without TensorFlow or Keras."""

from lmu.keras.convert import from_keras as from_keras
