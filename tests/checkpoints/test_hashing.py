from __future__ import annotations

import hashlib

import torch

from mpcbench.checkpoints import weights_sha256
from tests.tiny import tiny_llama


def test_one_bit_of_one_weight_changes_the_hash():
    model = tiny_llama()
    before = weights_sha256(model)
    assert before == weights_sha256(tiny_llama())
    bits = model.model.layers[1].mlp.up_proj.weight.data.view(torch.int32)
    bits[3, 4] ^= 1
    assert weights_sha256(model) != before


def test_names_count_as_well_as_values():
    first, second = torch.nn.Module(), torch.nn.Module()
    first.a, second.b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    assert weights_sha256(first) != weights_sha256(second)


def test_the_hash_is_what_its_docstring_says():
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(torch.arange(4.0).reshape(2, 2))
    expected = hashlib.sha256(b"w float32 (2, 2)\n" + module.w.detach().numpy().tobytes()).hexdigest()
    assert weights_sha256(module) == expected
