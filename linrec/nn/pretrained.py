"""Modules that can be saved and loaded, in a folder or on the Hugging Face Hub."""

from os import PathLike
from typing import Any, Self

from linrec.nn.arguments import Remembered


class Pretrained(Remembered):
    """A module whose weights and arguments can be saved in a folder and loaded from it.

    `save_pretrained`, `from_pretrained` and `push_to_hub` are those of huggingface_hub's mixin
    (`pip install 'linrec[hub]'`); folders are read and written without a network.
    """

    def save_pretrained(self, folder: str | PathLike[str], **options: Any) -> None:
        """Write weights, as safetensors with a checksum, and `config.json` into a folder.

        Args:
            folder: the folder, created if missing.
            options: those of `huggingface_hub.PyTorchModelHubMixin.save_pretrained`, such as
                `push_to_hub=True` and `repo_id`.

        Raises:
            ModuleNotFoundError: huggingface_hub or safetensors is not installed.
            ValueError: an argument of the module cannot be written down, such as a lambda.
            OSError: the folder cannot be written.
        """
        from linrec.nn import hub

        hub.save(self, folder, options)

    @classmethod
    def from_pretrained(cls, folder: str | PathLike[str], **options: Any) -> Self:
        """Make the module that `save_pretrained` wrote, in evaluation mode.

        Args:
            folder: the folder, or the name of a repository on the Hub.
            options: those of `huggingface_hub.PyTorchModelHubMixin.from_pretrained`, such as
                `revision` and `local_files_only=True`.

        Returns:
            The module, on the CPU, in the dtype in which it was saved.

        Raises:
            ModuleNotFoundError: huggingface_hub or safetensors is not installed.
            ValueError: the folder is of another class or of a newer version, or is damaged.
        """
        from linrec.nn import hub

        return hub.load(cls, folder, options)

    def push_to_hub(self, repo_id: str, **options: Any) -> object:
        """Write into a repository on the Hub.

        Args:
            repo_id: the name of the repository, `user/name`.
            options: those of `huggingface_hub.PyTorchModelHubMixin.push_to_hub`.

        Returns:
            The address of the commit.
        """
        from linrec.nn import hub

        return hub.push(self, repo_id, options)
