"""The training loop, and a state that survives being killed."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lmu.experiments.training.board import event_writer, write_epoch
from lmu.experiments.training.learning_curve import learning_curve
from lmu.experiments.training.recipe import Recipe
from lmu.experiments.training.run_folder import BEST, CURVE, LAST, RunFolder
from lmu.experiments.training.subnormals import flush_subnormals

Examples = tuple[Tensor, Tensor]  # inputs (examples, ...) and targets (examples, ...)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a training.

    Args:
        best_epoch: the epoch with the best validation score, or without validation examples the
            last, counted from 1. 0: there was no epoch.
        best_score: the best validation score; None without validation examples.
        history: one entry per epoch: `epoch`, `training_loss`, `validation_score`, `seconds`, and
            the `cpu_seconds` of all threads.
    """

    best_epoch: int
    best_score: float | None
    history: list[dict[str, Any]]


class Batches:
    """Batches of examples in memory, in an order drawn anew each time.

    Indexing tensors costs a few microseconds per batch; worker processes would cost more than a
    training step of a network that is only read at its last step.

    Args:
        examples: inputs and targets, examples first.
        size: examples in a batch; the last batch has the remaining ones.
        generator: draws the order.
        count: how many of the examples, drawn anew each time. None: all.
        lengths (examples): numbers that should be similar within a batch. None: batches are random.
    """

    def __init__(
        self,
        examples: Examples,
        size: int,
        generator: torch.Generator,
        count: int | None = None,
        lengths: Tensor | None = None,
    ) -> None:
        self.inputs, self.targets = examples
        self.size = size
        self.generator = generator
        self.count = min(count or len(self.inputs), len(self.inputs))
        self.lengths = lengths

    def __len__(self) -> int:
        return len(range(0, self.count, self.size))

    def __iter__(self) -> Iterator[Examples]:
        order = torch.randperm(len(self.inputs), generator=self.generator)[: self.count]
        batches = self.group_batches(order)
        # Sent to the device all at once: a step that sends its own would wait for the previous one.
        sent = torch.cat(batches).to(self.inputs.device)
        for chosen in sent.split([len(batch) for batch in batches]):
            yield self.inputs[chosen], self.targets[chosen]

    def group_batches(self, order: Tensor) -> list[Tensor]:
        """Split an order into batches, of examples of similar length if the lengths are known.

        The examples of a hundred batches at a time are sorted by length, so that chance still
        decides which ones share a batch; then the batches are shuffled.
        """
        if self.lengths is None:
            return list(order.split(self.size))
        batches: list[Tensor] = []
        for drawn in order.split(100 * self.size):
            batches += drawn[self.lengths[drawn].argsort(stable=True)].split(self.size)
        shuffled = torch.randperm(len(batches), generator=self.generator)
        return [batches[place] for place in shuffled.tolist()]


class Training:
    """Everything that changes in training, which is the content of a checkpoint.

    Args:
        network: the network.
        forward: from a batch of inputs to predictions.
        recipe: how it is trained.
        seed: seed of the order of the examples.
    """

    def __init__(
        self,
        network: nn.Module,
        forward: Callable[[Tensor], Tensor],
        recipe: Recipe,
        seed: int,
    ) -> None:
        self.network = network
        self.forward = forward
        self.recipe = recipe
        self.optimizer = recipe.optimizer(p for p in network.parameters() if p.requires_grad)
        self.learning_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.shuffling = torch.Generator().manual_seed(seed)
        self.history: list[dict[str, Any]] = []
        self.loss = torch.zeros(())
        self.started = self.cpu_started = 0.0

    @property
    def best(self) -> dict[str, Any]:
        """The entry of the best epoch, the first of equals; without scores, the last entry."""
        if self.history[-1]["validation_score"] is None:
            return self.history[-1]
        sign = -1.0 if self.recipe.metric.higher_is_better else 1.0
        return min(self.history, key=lambda entry: sign * entry["validation_score"])

    def start_epoch(self) -> None:
        """Set the network to training mode and the sums to zero."""
        self.network.train()
        self.loss = torch.zeros_like(self.loss)
        self.started, self.cpu_started = time.perf_counter(), time.process_time()

    def step(self, batch: Examples, done: float) -> None:
        """Take one training step on a batch; `done` is the share of all steps already taken."""
        inputs, targets = batch
        drawn = len(inputs)
        factor = self.recipe.schedule(done)
        for group, rate in zip(self.optimizer.param_groups, self.learning_rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad()
        if self.recipe.curriculum is not None:
            inputs, targets = self.recipe.curriculum(inputs, targets, done)
        inputs.requires_grad_(self.recipe.adversarial_distance > 0)
        loss = self.recipe.loss(self.forward(inputs), targets)
        if self.recipe.adversarial_distance:
            (gradient,) = torch.autograd.grad(loss, inputs, retain_graph=True)
            worse = move_inputs(inputs.detach(), gradient, self.recipe.adversarial_distance)
            loss = (loss + self.recipe.loss(self.forward(worse), targets)) / 2
        loss.backward()
        if self.recipe.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.max_gradient_norm)
        self.optimizer.step()
        # Left on its device: reading it would make an accelerator wait in each step.
        self.loss = self.loss.to(loss.device) + loss.detach() * drawn

    def finish_epoch(self, examples: int, validation: Examples | None) -> dict[str, Any]:
        """Score the epoch, add an entry to the history, and return it."""
        loss = self.loss.item() / examples
        epoch = len(self.history) + 1
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The training loss of epoch {epoch} is {loss}: expected a finite number. Lower "
                "the learning rate, or look for inputs that are not finite."
            )
        self.history.append(
            {
                "epoch": epoch,
                "training_loss": loss,
                "validation_score": score(self.network, self.forward, validation, self.recipe),
                "seconds": round(time.perf_counter() - self.started, 3),
                "cpu_seconds": round(time.process_time() - self.cpu_started, 3),
            }
        )
        return self.history[-1]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "shuffling": self.shuffling.get_state(),
            "dropout": torch.get_rng_state(),
            "dropout_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "history": self.history,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where a checkpoint was written."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.shuffling.set_state(state["shuffling"])
        torch.set_rng_state(state["dropout"])
        if state["dropout_cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["dropout_cuda"])
        self.history = state["history"]


def move_inputs(inputs: Tensor, gradient: Tensor, distance: float) -> Tensor:
    """Move each of `inputs (examples, ...)` along its gradient by a distance."""
    # (The gradient of a confidently classified example is so small that its square is zero.)
    flat = gradient.flatten(1)
    scaled = flat / flat.abs().amax(1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
    directions = scaled / scaled.norm(dim=1, keepdim=True).clamp(min=1)
    return inputs + distance * directions.view_as(gradient)


def predictions(
    network: nn.Module, forward: Callable[[Tensor], Tensor], examples: Examples, size: int
) -> Iterator[Examples]:
    """Compute a network's outputs without training it, a batch at a time.

    Args:
        network: set to evaluation mode meanwhile.
        forward: the function to compute: the network itself, or a part of it.
        examples: inputs `(examples, ...)` and targets `(examples, ...)`.
        size: examples in a batch.

    Yields:
        The outputs and the targets of each batch.
    """
    training = network.training
    inputs, targets = examples
    for batch, expected in zip(inputs.split(size), targets.split(size), strict=True):
        network.eval()
        with torch.no_grad():
            outputs = forward(batch)
        network.train(training)
        yield outputs, expected


def score(
    network: nn.Module,
    forward: Callable[[Tensor], Tensor],
    examples: Examples | None,
    recipe: Recipe,
) -> float | None:
    """Compute the metric of a network on some examples; None without any."""
    if examples is None:
        return None
    return recipe.metric.score(predictions(network, forward, examples, recipe.batch_size))


def train(
    network: nn.Module,
    training: Examples,
    validation: Examples | None,
    recipe: Recipe,
    folder: RunFolder,
    *,
    seed: int,
    forward: Callable[[Tensor], Tensor] | None = None,
    progress: bool = False,
    tensorboard: bool = False,
) -> Outcome:
    """Train a network, and leave it with the weights of its best validation epoch.

    After each epoch the best and the last state are written to the run folder. An interrupted run
    continues from the last whole epoch, and ends as it would have without the interruption.
    Dropout draws from torch's global generator: seed it before. Meanwhile the processor treats
    subnormal numbers as zeros.

    Args:
        network: the network; all its parameters that require a gradient are trained.
        training: inputs and targets to learn from, on the network's device.
        validation: inputs and targets to choose the epoch by. None: the last epoch counts.
        recipe: loss, metric, optimiser, batch size and epochs.
        folder: the run folder, new or of the run to continue.
        seed: seed of the order of the examples.
        forward: from a batch of inputs to predictions; None is the network itself. The inputs
            may be features that were computed once; then this is the rest of the network.
        progress: whether to show progress bars.
        tensorboard: whether to write the metrics for TensorBoard, too.

    Returns:
        The best epoch, its score and the history.

    Raises:
        FloatingPointError: the loss became infinite or NaN.
        ValueError: a checkpoint of the run to continue is missing or damaged.
    """
    if not recipe.epochs:
        weights = {"network": network.state_dict(), "epoch": 0}
        folder.save(BEST, weights | {"configuration": folder.configuration})
        return Outcome(0, score(network, forward or network, validation, recipe), [])
    run = Training(network, forward or network, recipe, seed)

    def take_weights(checkpoint: dict[str, Any]) -> None:
        network.load_state_dict(checkpoint["network"])

    if (folder.path / LAST).exists():
        folder.load(BEST, take_weights)  # needed at the end, but checked now
        folder.load(LAST, run.load_state_dict)
    folder.relog(run.history)
    if len(run.history) < recipe.epochs:
        with flush_subnormals():
            _run_epochs(run, training, validation, folder, progress, tensorboard)
    folder.load(BEST, take_weights)
    folder.write(CURVE, learning_curve(run.history, recipe.metric))
    return Outcome(run.best["epoch"], run.best["validation_score"], run.history)


def _run_epochs(
    run: Training,
    training: Examples,
    validation: Examples | None,
    folder: RunFolder,
    progress: bool,
    tensorboard: bool,
) -> None:
    recipe = run.recipe
    lengths = None if recipe.bucket_by is None else recipe.bucket_by(training[0]).cpu()
    batches = Batches(training, recipe.batch_size, run.shuffling, recipe.examples, lengths)
    steps = len(batches) * recipe.epochs
    shown: dict[str, float] = {}
    with event_writer(folder.path, len(run.history)) if tensorboard else nullcontext() as events:
        for epoch in range(len(run.history) + 1, recipe.epochs + 1):
            title = f"Epoch [{epoch}/{recipe.epochs}]"
            bar = tqdm(batches, title, leave=False, disable=not progress, postfix=shown)
            run.start_epoch()
            for step, batch in enumerate(bar, (epoch - 1) * len(batches)):
                run.step(batch, step / steps)
            entry = run.finish_epoch(batches.count, validation)
            folder.log(entry)
            # The best is written before the last: a run killed between the two continues from the
            # previous epoch and finds the same best again.
            if entry is run.best:
                weights = {"network": run.network.state_dict(), "epoch": epoch}
                folder.save(BEST, weights | {"configuration": folder.configuration})
            folder.save(LAST, run.state_dict())
            shown = {"training loss": entry["training_loss"]}
            if validation is not None:
                shown[f"validation {recipe.metric.name}"] = entry["validation_score"]
            if events is not None:
                write_epoch(events, epoch, shown, run.optimizer)
