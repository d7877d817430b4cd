"""A wrapper that returns only a layer's outputs, for `torch.nn.Sequential`."""

from typing import final

from torch import Tensor, nn

from linrec.nn.packed import TakesPacked
from linrec.nn.pretrained import Pretrained
from linrec.nn.segments import pass_resets


@final
class Outputs(Pretrained, TakesPacked):
    """A module's outputs without its final state, for `torch.nn.Sequential` and the like.

        Sequential(Outputs(layer), …)(x) = …(layer(x).outputs)

    Sequences begin from a state of zeros. The layer itself is unchanged: its names are under
    `module` in the state dict, and it can be streamed by itself.

    Args:
        module: a module that returns outputs and a state, such as those of `linrec.nn` and `lmu`.

    Raises:
        TypeError: the argument is not a module.

    Example:
        >>> import torch, linrec
        >>> layer = linrec.nn.Outputs(linrec.nn.MinGRU(3, 4))
        >>> torch.nn.Sequential(layer, torch.nn.Linear(4, 1))(torch.randn(2, 7, 3)).shape
        torch.Size([2, 7, 1])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"`module` is of type {type(module).__name__}: expected a module. Of a recurrence, "
                "pass `linrec.nn.Recurrence(recurrence)`."
            )
        self.module = module

    def forward(
        self, inputs: Tensor, lengths: Tensor | None = None, resets: Tensor | None = None
    ) -> Tensor:
        """Run all steps, and return `(*batch, time, outputs)`.

        Args:
            inputs (*batch, time, input_size): x.
            lengths (*batch): the steps of each right-padded sequence.
            resets (*batch, time): True where the state before a step is forgotten, for
                modules whose `forward` takes resets. None: nowhere.
        """
        return self.module(inputs, lengths=lengths, **pass_resets(resets))[0]
