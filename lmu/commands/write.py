"""`lmu write` and `lmu translate`: trained networks that write, one word after the other."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from lmu.commands.options import DataDir, Name, Seed, Threads, report_errors
from lmu.experiments import restore
from lmu.experiments.data import Dataset
from lmu.experiments.data.imdb import split_words
from lmu.experiments.data.text8 import decode_letters, encode_letters
from lmu.experiments.iwslt15 import translate_sentences
from lmu.experiments.models import BeamSearch, LanguageModel, SentenceTranslator

Checkpoint = Annotated[Path, typer.Option(help="The best.safetensors of a run folder.")]


def write(
    experiment: Name,
    checkpoint: Checkpoint,
    prompt: Annotated[str, typer.Option(help="The text to go on with.")],
    length: Annotated[int, typer.Option(min=1, help="Letters or words to write.")] = 200,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 writes the likeliest; 1 draws as it has learned.")
    ] = 0.8,
    seed: Seed = 0,
    data_dir: DataDir = None,
    threads: Threads = None,
) -> None:
    """Go on with a text by a trained language model (text8, imdb-language), step by step."""
    with report_errors():
        network, _, data = restore(experiment, checkpoint, data_folder=data_dir)
        if not isinstance(network, LanguageModel):
            raise ValueError(
                f"`{experiment.name}` trains a {type(network).__name__}: expected an experiment "
                "with a language model. Type `text8` or `imdb-language`."
            )
        numbers = encode_prompt(prompt, data)
        written = network.generate(
            numbers,
            length,
            temperature=temperature,
            generator=torch.Generator().manual_seed(seed),
        )
    typer.echo(decode_text(torch.cat([numbers, written.to(numbers.dtype)]), data))


def encode_prompt(prompt: str, data: Dataset) -> Tensor:
    """Encode a prompt as numbers: of words if the data have a vocabulary, else of letters."""
    if data.vocabulary is None:
        return encode_letters(prompt)
    return data.vocabulary.encode([split_words(prompt)])[0]


def decode_text(numbers: Tensor, data: Dataset) -> str:
    """Decode numbers as a text."""
    if data.vocabulary is None:
        return decode_letters(numbers)
    return " ".join(data.vocabulary.decode(numbers.tolist()))


def translate(
    experiment: Name,
    checkpoint: Checkpoint,
    sentences: Annotated[list[str], typer.Argument(help="Words with spaces between.")],
    beams: Annotated[int, typer.Option(min=1, help="Hypotheses that are kept; 1 is greedy.")] = 5,
    data_dir: DataDir = None,
    threads: Threads = None,
) -> None:
    """Translate sentences by a trained translator (iwslt15)."""
    with report_errors():
        network, _, data = restore(experiment, checkpoint, data_folder=data_dir)
        if not isinstance(network, SentenceTranslator):
            raise ValueError(
                f"`{experiment.name}` trains a {type(network).__name__}: expected an experiment "
                "with a translator. Type `iwslt15`."
            )
        search = BeamSearch(beams=beams, longest=120, length_power=1.0)
        for translation in translate_sentences(network, data.vocabulary, sentences, search):
            typer.echo(translation)
