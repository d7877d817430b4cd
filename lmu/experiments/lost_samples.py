"""Lost samples: Mackey-Glass and spoken digits with half of the measurements missing.

`mackey-glass-lost` predicts 15 steps ahead at each remaining sample, in windows of 500 steps;
`spoken-digits-lost` recognises the digit from 49 of 98 windows of a spectrogram. Each series loses
other samples, in training and in the test. `lmu` takes the time since the previous sample as the
length of its step, the LSTM takes it as a number next to the sample, and `lmu-even` assumes that
the samples are evenly spaced, at their mean distance. `polynomial` is the plain baseline of
Mackey-Glass: least squares on products of up to three of the last eight samples and the times
between them. Of the polynomials tried (8 or 16 samples, products of up to three) it was the best on
the validation series.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from linrec import Result
from lmu.experiments.data import Dataset, Split, lose_samples, mackey_glass, spoken_digits
from lmu.experiments.data.speech import BANDS, STEPS
from lmu.experiments.experiment import Budget, Experiment, Folder, TrainingSetup, most_likely
from lmu.experiments.models import DelayPolynomial, LayerPredictor, Network
from lmu.experiments.spoken_digits import LSTM_WIDTH, MeanOfSteps, classifier, memory, recipe
from lmu.experiments.texts import warmup_then_cosine
from lmu.experiments.training import NRMSE, Recipe
from lmu.layers import LSTM, Layer, ParallelLMU

WINDOW, LOST = 500, 250  # steps of Mackey-Glass
WINDOWS_LOST = 49  # of the spectrogram's 98


class Timed(Layer):
    """An LMU whose last input is the length of the step.

    Args:
        layer: reads the other inputs.
        ignored: whether to ignore that input, and give all steps the length 1.
    """

    def __init__(self, layer: ParallelLMU, *, ignored: bool = False) -> None:
        super().__init__()
        self.layer, self.ignored = layer, ignored
        self.input_size, self.output_size = layer.input_size + 1, layer.output_size
        self.state_size = layer.state_size

    def forward(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Run all steps; arguments and result as of `Layer.forward`."""
        return self.layer(inputs[..., :-1], initial_state, lengths, self.dt(inputs), resets)

    def final(
        self,
        inputs: Tensor,
        initial_state: Tensor | None = None,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> Result:
        """Compute the last step only; arguments and result as of `Layer.final`."""
        given = inputs[..., :-1], initial_state, lengths, self.dt(inputs), resets
        return self.layer.final(*given)

    def step(self, input: Tensor, state: Tensor | None = None) -> Result:
        """Run one step; arguments and result as of `Layer.step`."""
        return self.layer.step(input[..., :-1], state, self.dt(input))

    def dt(self, inputs: Tensor) -> Tensor | None:
        """Return the last input, the lengths of the steps."""
        return None if self.ignored else inputs[..., -1]


def series(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return windows of the series with lost samples; no folder is read."""
    data = mackey_glass(seed)
    train, validation, test = (
        Split(*(part.reshape(-1, WINDOW, 1) for part in split)) for split in data.splits
    )
    whole = data._replace(train=train, validation=validation, test=test)
    return lose_samples(whole, LOST, seed)


def recordings(seed: int, folder: Folder, budget: Budget) -> Dataset:
    """Return the recordings with lost windows, all of them for every budget."""
    return lose_samples(spoken_digits(folder), WINDOWS_LOST, seed)


def predictor(make: Callable[[], Layer], data: Dataset) -> Network:
    """Build a layer, followed by a rectified layer of 80 units and a prediction."""
    return LayerPredictor(make(), dense_size=80)


def polynomial(data: Dataset) -> DelayPolynomial:
    """Fit a cubic polynomial in the last eight samples and the times between: 969 numbers."""
    return DelayPolynomial(range(8), 3, inputs=2).fit(*data.train)


def of_mackey_glass(theta: float = 50.0) -> ParallelLMU:
    """Build the LMU for Mackey-Glass, of order 20."""
    return ParallelLMU(1, 140, 1, 20, theta)


def prediction(budget: Budget, learning_rate: float) -> Recipe:
    """Train by Adam on batches of 8 windows, for 5 or 40 epochs."""
    return Recipe(
        loss=nn.functional.mse_loss,
        metric=NRMSE,
        optimizer=partial(torch.optim.Adam, lr=learning_rate),
        batch_size=8,
        epochs=40 if budget is Budget.FULL else 5,
        schedule=warmup_then_cosine,
        max_gradient_norm=1.0,
    )


# Layers, and their learning rates: each is the best of four or more on the quick budget, on the
# validation examples of seed 0.
PREDICTING: dict[str, tuple[Callable[[], Layer], float]] = {
    "lmu": (lambda: Timed(of_mackey_glass()), 0.1),
    "lmu-even": (
        lambda: Timed(of_mackey_glass(50.0 * (WINDOW - LOST) / WINDOW), ignored=True),
        3e-2,
    ),
    "lstm": (lambda: LSTM(2, 50), 3e-2),
}
TELLING: dict[str, tuple[Callable[[], Layer], float]] = {
    "lmu": (lambda: Timed(memory()), 1e-2),
    "lmu-even": (lambda: Timed(memory(float(STEPS - WINDOWS_LOST)), ignored=True), 3e-2),
    "lstm": (lambda: LSTM(BANDS + 1, LSTM_WIDTH), 3e-3),
    "mean": (lambda: MeanOfSteps(BANDS + 1), 0.3),
}

MACKEY_GLASS_LOST = Experiment(
    name="mackey-glass-lost",
    title="Mackey-Glass, half of the samples lost",
    paper="none: steps of unequal length",
    table="Mackey-Glass with half of the samples lost, NRMSE",
    target=None,
    baselines=(),
    data=series,
    models={
        name: {
            budget: TrainingSetup(partial(predictor, make), prediction(budget, rate))
            for budget in Budget
        }
        for name, (make, rate) in PREDICTING.items()
    }
    | {
        "polynomial": {
            budget: TrainingSetup(polynomial, replace(prediction(budget, 3e-2), epochs=0))
            for budget in Budget
        }
    },
)
SPOKEN_DIGITS_LOST = Experiment(
    name="spoken-digits-lost",
    title="spoken digits, half of the spectrogram lost",
    paper="none: steps of unequal length",
    table="Spoken digits with half of the windows lost, test accuracy in percent",
    target=None,
    baselines=(),
    data=recordings,
    models={
        name: {
            budget: TrainingSetup(partial(classifier, make), recipe(budget, rate))
            for budget in Budget
        }
        for name, (make, rate) in TELLING.items()
    },
    decide=most_likely,
)
