"""Random questions in the tiny tokenizer's words, and files of them."""

from __future__ import annotations

import json
import random
from pathlib import Path


def tiny_rows(count: int = 12, seed: int = 0, vocab: int = 64) -> list[dict]:
    """Rows in ARC's format: three to five choices of one to four words, labels by letter or by digit."""
    rng = random.Random(seed)

    def words(least: int, most: int) -> str:
        return " ".join(f"w{rng.randrange(3, vocab)}" for _ in range(rng.randint(least, most)))

    rows = []
    for number in range(count):
        size = rng.randint(3, 5)
        labels = list("ABCDE" if number % 2 else "12345")[:size]
        texts: list[str] = []
        while len(texts) < size:
            text = words(1, 4)
            if text not in texts:
                texts.append(text)
        choices = {"text": texts, "label": labels}
        rows.append({"question": words(3, 12), "choices": choices, "answerKey": rng.choice(labels)})
    return rows


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
