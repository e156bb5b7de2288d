from __future__ import annotations

import math

import pytest
import torch

from mpcbench import accuracy
from mpcbench.accuracy import distance
from mpcbench.errors import UserError
from tests.accuracy.questions import tiny_rows, write_rows
from tests.tiny import tiny_llama, tiny_texts, tiny_tokenizer


def direct(original, model, tokenizer, texts) -> tuple[float, float, int]:
    """KL(original || model), argmax agreement and positions, text by text in float64."""
    divergence, equal, count = 0.0, 0, 0
    for text in texts:
        ids = torch.tensor([tokenizer(text).input_ids])
        with torch.no_grad():
            p = original(ids).logits[0, :-1].double().softmax(-1)
            q = model(ids).logits[0, :-1].double().softmax(-1)
        divergence += float((p * (p / q).log()).sum())
        equal += int((p.argmax(-1) == q.argmax(-1)).sum())
        count += len(p)
    return divergence / count, equal / count, count


def texts_of_many_lengths() -> list[str]:
    return [" ".join(text.split()[: 2 + 3 * place]) for place, text in enumerate(tiny_texts(count=6))]


@pytest.mark.parametrize("budget", [1, 30, 10_000])
def test_it_is_the_formula_whatever_the_batches(budget, monkeypatch):
    whole = distance._batches
    monkeypatch.setattr(distance, "_batches", lambda rows: whole(rows, budget))
    original, model, tokenizer = tiny_llama(seed=0), tiny_llama(seed=1), tiny_tokenizer()
    texts, seen = texts_of_many_lengths(), []
    found = accuracy.fidelity(original, model, tokenizer, texts, "words", lambda *at: seen.append(at))
    kl, agreement, count = direct(original, model, tokenizer, texts)
    assert found.kl == pytest.approx(kl, rel=1e-4) and kl > 0.1
    assert found.argmax_agreement == pytest.approx(agreement) and agreement < 1
    assert (found.tokens, found.text) == (count, "words")
    assert seen[-1] == ("comparing texts", 6, 6)


def test_identical_models_do_not_differ():
    tokenizer, texts = tiny_tokenizer(), texts_of_many_lengths()
    model, copy = tiny_llama(seed=0), tiny_llama(seed=0)
    for other in (model, copy):
        found = accuracy.fidelity(model, other, tokenizer, texts, "words")
        assert found.kl == 0.0 and found.argmax_agreement == 1.0


@pytest.mark.parametrize("texts", [[], ["w3"], [""]])
def test_texts_without_a_next_token_are_refused(texts):
    with pytest.raises(UserError, match="longer texts"):
        accuracy.fidelity(tiny_llama(), tiny_llama(seed=1), tiny_tokenizer(), texts, "words")


def test_other_vocabularies_are_refused():
    with pytest.raises(UserError, match="64 and 70"):
        accuracy.fidelity(tiny_llama(), tiny_llama(vocab=70), tiny_tokenizer(), ["w3 w4"], "words")


def test_task_texts_are_questions_with_their_right_answers(tmp_path):
    rows = tiny_rows(5)
    texts, description = accuracy.task_texts(write_rows(tmp_path / "tiny.jsonl", rows), limit=3)
    right = [row["choices"]["text"][row["choices"]["label"].index(row["answerKey"])] for row in rows]
    assert texts == [
        f"Question: {row['question']}\nAnswer: {answer}" for row, answer in zip(rows[:3], right, strict=False)
    ]
    assert description.startswith("3 questions with their right answers; tiny.jsonl")


def test_agreement_measures_what_it_says():
    tokenizer = tiny_tokenizer()
    plain = torch.zeros(64)
    plain[5] = 2.0
    secure = plain.clone()
    secure[7], secure[9] = 3.0, -0.5
    original = torch.zeros(64)
    original[11] = 1.0
    found = accuracy.agreement(plain, secure, original, tokenizer)
    assert (found.next_token, found.plaintext_next_token, found.original_next_token) == ("w7", "w5", "w11")
    assert not found.argmax_equal
    assert found.max_logit_error == pytest.approx(3.0)
    assert found.mean_logit_error == pytest.approx(3.5 / 64)
    assert found.cosine == pytest.approx(4 / (2 * math.sqrt(4 + 9 + 0.25)))
    p, q = plain.double().softmax(0), secure.double().softmax(0)
    assert found.kl == pytest.approx(float((p * (p / q).log()).sum()))


def test_the_five_likeliest_are_compared_as_sets():
    plain = torch.arange(64.0)
    secure = plain.clone()
    secure[[63, 62]] = plain[[62, 63]]  # another order, the same five
    secure[10] = 99.0
    found = accuracy.agreement(plain, secure, plain, tiny_tokenizer())
    assert found.top5_kept == 4


def test_a_vector_agrees_with_itself_in_any_precision():
    logits = tiny_llama()(torch.tensor([[3, 4]])).logits[0, -1]
    found = accuracy.agreement(logits, logits.double(), logits, tiny_tokenizer())
    assert found.argmax_equal and found.kl == 0.0 and found.max_logit_error == 0.0
    assert found.top5_kept == 5
    assert found.cosine == pytest.approx(1.0)


def test_overflowed_logits_are_a_sentence():
    logits = torch.zeros(64)
    broken = logits.clone()
    broken[3] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        accuracy.agreement(logits, broken, logits, tiny_tokenizer())
