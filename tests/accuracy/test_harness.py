from __future__ import annotations

import math
import socket

import pytest
import torch

from mpcbench import accuracy
from mpcbench.accuracy import harness, questions
from mpcbench.errors import UserError
from mpcbench.progress import silent
from tests.accuracy.questions import tiny_rows, write_rows
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.fixture
def model():
    return tiny_llama(seed=3)


@pytest.fixture
def tokenizer():
    return tiny_tokenizer()


def oracle(model, tokenizer, rows) -> tuple[float, float]:
    """acc and acc_norm from the definition: one row a choice, log-likelihood of the answer's tokens."""
    plain = normed = 0
    for row in rows:
        context = f"Question: {row['question']}\nAnswer:"
        start = len(tokenizer(context).input_ids)
        scores = []
        for text in row["choices"]["text"]:
            ids = tokenizer(f"{context} {text}").input_ids
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            scores.append(sum(float(logits[at - 1, ids[at]]) for at in range(start, len(ids))))
        right = row["choices"]["label"].index(row["answerKey"])
        lengths = [len(text) for text in row["choices"]["text"]]
        by_length = [score / length for score, length in zip(scores, lengths, strict=True)]
        plain += scores.index(max(scores)) == right
        normed += by_length.index(max(by_length)) == right
    return plain / len(rows), normed / len(rows)


def test_scores_equal_a_hand_written_oracle(model, tokenizer, tmp_path):
    rows = tiny_rows(60)
    file = write_rows(tmp_path / "tiny.jsonl", rows)
    acc, acc_norm = accuracy.evaluate(model, tokenizer, file)
    expected = oracle(model, tokenizer, rows)
    assert (acc.metric, acc_norm.metric) == ("acc", "acc_norm")
    assert (acc.score, acc_norm.score) == pytest.approx(expected)
    assert 0 < acc.score < 1, "the test must be able to tell right from wrong"
    assert acc.score != acc_norm.score
    assert acc.stderr == pytest.approx(math.sqrt(acc.score * (1 - acc.score) / 59))
    assert (acc.n, acc.task, acc.setting) == (60, "tiny.jsonl", "plaintext")
    for score in (acc, acc_norm):
        assert len(score.answered) == 60 and score.answered.count("1") == round(60 * score.score)
    first = [oracle(model, tokenizer, [row])[0] for row in rows[:20]]
    assert acc.answered[:20] == "".join(str(int(right)) for right in first)


def test_shared_prefixes_score_as_lm_eval_alone_also_where_the_context_is_cut(model, tokenizer, tmp_path):
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    rows = tiny_rows(20)
    rows[0]["question"] = " ".join(f"w{3 + place % 60}" for place in range(200))  # the model has 128 places
    found = questions.read_file(write_rows(tmp_path / "tiny.jsonl", rows))
    alone = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    shared = harness._language_model(model, tokenizer, silent)
    answers = []
    for language_model in (alone, shared):
        with harness.quiet():
            results = lm_eval.evaluate(language_model, {found.task: harness._task(found)}, log_samples=True)
        samples = sorted(results["samples"][found.task], key=lambda sample: sample["doc_id"])
        answers.append([answer[0] for sample in samples for answer in sample["filtered_resps"]])
    assert len(answers[0]) == sum(len(row["choices"]["text"]) for row in rows)
    assert answers[1] == pytest.approx(answers[0], abs=1e-4)


def test_progress_changes_no_score_and_limit_takes_the_first(model, tokenizer, tmp_path):
    rows = tiny_rows(20)
    file = write_rows(tmp_path / "tiny.jsonl", rows)
    seen = []
    with_progress = accuracy.evaluate(
        model, tokenizer, file, limit=12, progress=lambda what, done, total: seen.append((done, total))
    )
    assert with_progress == accuracy.evaluate(model, tokenizer, file, limit=12)
    assert with_progress[0].n == 12
    assert with_progress[0].score == pytest.approx(oracle(model, tokenizer, rows[:12])[0])
    choices = sum(len(row["choices"]["text"]) for row in rows[:12])
    assert seen == [(done, choices) for done in range(1, choices + 1)]


def test_one_question_has_a_score_and_no_stderr(model, tokenizer, tmp_path):
    file = write_rows(tmp_path / "tiny.jsonl", tiny_rows(5))
    acc, _ = accuracy.evaluate(model, tokenizer, file, limit=1)
    assert acc.n == 1 and acc.score in (0.0, 1.0) and acc.stderr == 0.0


def test_a_changed_file_is_read_again(model, tokenizer, tmp_path):
    rows = tiny_rows(30)
    file = write_rows(tmp_path / "tiny.jsonl", rows)
    before = accuracy.evaluate(model, tokenizer, file)
    write_rows(file, tiny_rows(30, seed=1))
    after = accuracy.evaluate(model, tokenizer, file)
    assert before[0].source != after[0].source
    assert after[0].score == pytest.approx(oracle(model, tokenizer, tiny_rows(30, seed=1))[0])


def test_nothing_is_printed_reseeded_or_asked_of_the_network(model, tokenizer, tmp_path, monkeypatch, capfd):
    def refuse(*_):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    file = write_rows(tmp_path / "tiny.jsonl", tiny_rows(6))
    before = torch.get_rng_state()
    accuracy.evaluate(model, tokenizer, file)
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "hf").exists()


def test_an_answer_longer_than_the_model_is_a_sentence(model, tokenizer, tmp_path):
    rows = tiny_rows(3)
    rows[1]["choices"]["text"][0] = " ".join(["w5"] * 200)
    with pytest.raises(UserError, match="128 positions"):
        accuracy.evaluate(model, tokenizer, write_rows(tmp_path / "tiny.jsonl", rows))


@pytest.mark.real_model
def test_smollm2_knows_some_science():
    from mpcbench.checkpoints import load

    checkpoint = load("smollm2-135m")
    found = questions.packaged().head(24)
    acc, _ = harness.score(checkpoint.model, checkpoint.tokenizer, found)
    assert acc.task == "mpcbench-science" and acc.n == 24
    assert acc.score >= 0.45, "chance is 0.25"
