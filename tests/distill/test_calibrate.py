from __future__ import annotations

import sys

import pytest
import torch
from torch.nn import functional

from mpcbench.checkpoints import load, read_provenance
from mpcbench.distill import calibrate, fit_layers, sensitivities
from mpcbench.distill.calibrate import fit_layer
from mpcbench.distill.stream import Stream
from mpcbench.distill.texts import Texts, split
from mpcbench.errors import UserError
from tests.tiny import tiny_folder, tiny_texts


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("MPCBENCH_CACHE", str(tmp_path / "cache"))
    return load(str(tiny_folder(tmp_path / "tiny", layers=4)))


TEXTS = Texts(tiny_texts(count=64), "random words", "0" * 64)


def held_out_kl(checkpoint, other):
    parts = split(TEXTS, checkpoint.tokenizer)
    total, count = 0.0, 0
    with torch.no_grad():
        for tokens in parts.held_out:
            ids = torch.tensor([tokens])
            p, q = (model(ids).logits[0].log_softmax(-1) for model in (checkpoint.model, other.model))
            total += functional.kl_div(q, p, reduction="sum", log_target=True).item()
            count += len(tokens)
    return total / count


def test_the_checkpoint_is_what_its_provenance_says(tiny):
    folder = calibrate(tiny, 2, texts=TEXTS)
    provenance = read_provenance(folder)
    loaded = load(str(folder))
    assert loaded.model.config.polynomial_layers == provenance.polynomial_layers
    assert provenance.polynomial_layers == sorted(provenance.ranking[:2])
    assert provenance.original_sha256 == tiny.sha256
    assert (provenance.original, provenance.original_source) == (tiny.name, tiny.source)
    assert (provenance.degree, provenance.placement) == (2, "least-sensitive")
    assert provenance.calibration == "random words"
    assert provenance.calibration_tokens == 56 * 20
    assert provenance.held_out.tokens == 8 * 20
    assert provenance.held_out.kl == pytest.approx(held_out_kl(tiny, loaded), rel=1e-3)
    assert 0 < provenance.held_out.kl < 0.2
    assert tiny.source in loaded.source


def test_text_that_counts_nothing_changes_nothing(tiny):
    """And what text counts is relative: all of it twice is all of it once."""
    generator = torch.Generator().manual_seed(3)
    sequences = torch.randint(3, 60, (40, 12), generator=generator).tolist()

    def fitted(weights):
        stream = Stream(tiny.model, sequences, weights)
        stream.attend(0)
        return fit_layer(stream, 0, 2)

    plain = Stream(tiny.model, sequences[:30])
    plain.attend(0)
    torch.testing.assert_close(fitted([1.0] * 30 + [0.0] * 10), fit_layer(plain, 0, 2), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(fitted([2.0] * 40), fitted(None), atol=1e-4, rtol=1e-3)
    assert (fitted([1.0] * 30 + [0.1] * 10) - fit_layer(plain, 0, 2)).abs().max() > 1e-3


def test_a_higher_degree_is_closer(tiny):
    kls = [read_provenance(calibrate(tiny, 4, degree, "first", TEXTS)).held_out.kl for degree in (2, 4)]
    assert kls[1] < kls[0]


def test_a_polynomial_a_channel_is_closer_than_one_a_layer(tiny):
    own, one = (
        read_provenance(calibrate(tiny, 4, 2, "first", TEXTS, per_channel=per_channel))
        for per_channel in (True, False)
    )
    assert own.held_out.kl < one.held_out.kl
    assert (own.per_channel, one.per_channel) == (True, False)


def test_the_second_time_comes_from_the_cache(tiny, monkeypatch):
    folder = calibrate(tiny, 2, texts=TEXTS)
    module = sys.modules[calibrate.__module__]
    for name in ("fit_layers", "sensitivities"):
        monkeypatch.setattr(module, name, None)
    assert calibrate(tiny, 2, texts=TEXTS) == folder


def test_a_damaged_ranking_is_made_again(tiny, tmp_path):
    first = read_provenance(calibrate(tiny, 2, texts=TEXTS)).ranking
    (ranking,) = (tmp_path / "cache" / "rankings").iterdir()
    ranking.write_text("{")
    assert read_provenance(calibrate(tiny, 1, texts=TEXTS)).ranking == first


def test_other_inputs_are_other_checkpoints(tiny):
    other = Texts(tiny_texts(count=64, seed=1), "other words", "1" * 64)
    folders = [
        calibrate(tiny, 1, 2, "first", TEXTS),
        calibrate(tiny, 1, 3, "first", TEXTS),
        calibrate(tiny, 2, 2, "first", TEXTS),
        calibrate(tiny, 1, 2, "first", other),
        calibrate(tiny, 1, 2, "last", TEXTS),
        calibrate(tiny, 1, 2, "first", TEXTS, per_channel=False),
    ]
    assert len(set(folders)) == len(folders)


def test_sensitivity_is_the_kl_of_replacing_one_layer(tiny):
    parts = split(TEXTS, tiny.tokenizer)
    alone = [fit_layers(tiny.model, [layer], 2, parts).held_out.kl for layer in range(4)]
    assert sensitivities(tiny.model, 2, parts) == pytest.approx(alone, rel=1e-3)


def test_later_layers_are_fitted_on_what_earlier_ones_produce(tiny):
    parts = split(TEXTS, tiny.tokenizer)
    both = fit_layers(tiny.model, [0, 2], 2, parts).coefficients
    assert torch.equal(both[0], fit_layers(tiny.model, [0], 2, parts).coefficients[0])
    assert not torch.equal(both[2], fit_layers(tiny.model, [2], 2, parts).coefficients[2])


def test_the_original_is_left_as_it_was(tiny):
    state = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    calibrate(tiny, 4, texts=TEXTS)
    assert all(torch.equal(tensor, state[name]) for name, tensor in tiny.model.state_dict().items())
    assert not any(parameter.grad_fn for parameter in tiny.model.parameters())


def test_progress_is_told_to_the_end(tiny):
    told = []
    calibrate(tiny, 1, texts=TEXTS, progress=lambda *step: told.append(step))
    assert ("ranking layers", 4, 4) in told
    assert told[-1] == ("fitting layers", 4, 4)


def test_a_folder_of_ones_own(tiny, tmp_path):
    target = tmp_path / "mine"
    assert calibrate(tiny, 1, 2, "first", TEXTS, folder=target) == target
    with pytest.raises(UserError, match="not an empty folder"):
        calibrate(tiny, 1, 2, "first", TEXTS, folder=target)
    assert not (tmp_path / "cache" / "checkpoints").exists()


def test_a_polynomial_checkpoint_is_not_calibrated_again(tiny):
    poly = load(str(calibrate(tiny, 1, 2, "first", TEXTS)))
    with pytest.raises(UserError, match="has polynomial layers already"):
        calibrate(poly, 1, texts=TEXTS)


def test_a_failure_leaves_no_checkpoint(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules[calibrate.__module__], "write_provenance", full)
    with pytest.raises(OSError, match="No space"):
        calibrate(tiny, 1, 2, "first", TEXTS)
    assert list((tmp_path / "cache" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("layers, degree, sentence", [(5, 2, "the model has 4"), (1, 6, "choose 2, 3 or 4")])
def test_impossible_wishes(tiny, layers, degree, sentence):
    with pytest.raises(UserError, match=sentence):
        calibrate(tiny, layers, degree, texts=TEXTS)
