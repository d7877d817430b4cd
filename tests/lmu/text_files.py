"""A few lines of every data set of texts, in the layout of their publishers."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

VECTORS = {"a": [1.0, 0.0, 2.0], "cat": [0.0, 3.0, 1.0], "sat": [4.0, 1.0, 0.0]}
REVIEWS = {
    "train/neg/0_2": "a cat, a cat<br /><br />sat",
    "train/neg/10_1": "cat",
    "train/neg/2_1": "a dog",
    "train/pos/0_9": "sat sat sat",
    "train/pos/1_10": "It's GOOD, isn't it?",
    "train/pos/2_8": "sat a",
    "test/neg/0_3": "cat",
    "test/pos/0_10": "sat",
    **{f"train/unsup/{number}_0": "a cat sat" for number in range(4)},
}


def text_files(folder: Path) -> Path:
    """Write a data folder with a few lines of everything."""
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in VECTORS.items()]
    write(folder / "glove/glove.6B.300d.txt", "\n".join(lines) + "\n")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as members:
        for name, text in {**REVIEWS, "README": "no review"}.items():
            member = tarfile.TarInfo(f"aclImdb/{name}.txt")
            member.size = len(text.encode())
            members.addfile(member, io.BytesIO(text.encode()))
    write(folder / "imdb/aclImdb_v1.tar.gz", archive.getvalue())
    for part in ("train", "dev", "test"):
        write(folder / f"quora/{part}.tsv", "1\tA cat\tA cat sat\t7\n0\tcat\tdog\t8\n")
        rows = [("neutral", "A cat.", "a cat sat"), ("-", "cat", "a"), ("entailment", "cat", "a")]
        names = ("gold_label", "sentence1", "sentence2")
        text = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
        write(folder / f"snli/snli_1.0_{part}.jsonl", text)
    for part in ("train", "tst2012", "tst2013"):
        write(folder / f"iwslt15/{part}.en", "a cat sat .\n\nthe cat\n")
        write(folder / f"iwslt15/{part}.vi", "một con mèo ngồi .\n\ncon mèo\n")
    with zipfile.ZipFile(folder / "text8.zip", "w") as whole:
        whole.writestr("text8", (" the cat sat on the mat" * 400)[:8000])
    write(folder / "text8/text8.zip", (folder / "text8.zip").read_bytes())
    return folder


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
