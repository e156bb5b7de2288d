from __future__ import annotations

import pytest

from mpcbench.distill import Texts
from mpcbench.errors import UserError
from mpcbench.graph.shares import encode, read_shares
from mpcbench.parties.tokenizer import read_tokenizer
from mpcbench.pipeline.export import export, model_info
from tests.pipeline.conftest import PROMPT, TOKENS
from tests.tiny import tiny_texts

TEXTS = Texts(tiny_texts(), "random words", "0")


def test_two_folders_and_the_clients_tokenizer(original, tmp_path):
    info = export(original, tmp_path / "out", "client", 16, TEXTS)
    first, second = (read_shares(tmp_path / "out" / f"party{rank}", rank) for rank in (0, 1))
    gate = original.model.model.layers[1].mlp.up_proj.weight
    gain = original.model.model.layers[1].post_attention_layernorm.weight
    name = "layers.1.mlp.up_proj.weight"
    together = first.shares[name] + second.shares[name]
    assert (together - encode((gate * gain).detach(), 16)).abs().max() == 0
    assert read_tokenizer(tmp_path / "out" / "party1")(PROMPT).input_ids == TOKENS[0].tolist()
    assert not (tmp_path / "out" / "party0" / "tokenizer").exists()
    assert first.graph.model == info.model_dump() == model_info(original).model_dump()


def test_ranges_are_in_the_graph(original, tmp_path):
    export(original, tmp_path / "out", "client", 16, TEXTS)
    graph = read_shares(tmp_path / "out" / "party0").graph
    for node in graph.nodes:
        assert ("range" in node.attrs) == (node.op in ("rms_norm", "softmax", "swiglu", "linear", "matmul"))


def test_text_of_single_tokens_is_refused(original, tmp_path):
    with pytest.raises(UserError, match="no passage of two tokens"):
        export(original, tmp_path / "out", "client", 16, Texts(["w5", "w6"], "short", "0"))
    assert not (tmp_path / "out").exists()


def test_progress_ends_at_the_end_of_every_step(original, tmp_path):
    seen = []
    export(original, tmp_path / "out", "client", 16, TEXTS, lambda *step: seen.append(step))
    last = {what: (done, total) for what, done, total in seen}
    assert list(last) == ["capturing", "calibrating ranges", "cutting shares"]
    assert all(done == total > 0 for done, total in last.values())
