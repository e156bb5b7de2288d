from __future__ import annotations

import pytest
import torch
from transformers import (
    GPT2Config,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from mpcbench.checkpoints.family import as_llama, check_family
from mpcbench.errors import UserError
from tests.tiny import tiny_llama

SHAPE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "initializer_range": 0.3,
    "max_position_embeddings": 128,
    "rope_theta": 5000.0,
}
IDS = torch.tensor([[1, 5, 9, 33, 7, 60, 4]])


def randomise_biases(model):
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model.eval()


@pytest.mark.parametrize(
    "kind, config",
    [
        (MistralForCausalLM, MistralConfig(**SHAPE, sliding_window=None)),
        (Qwen2ForCausalLM, Qwen2Config(**SHAPE)),
        (Qwen2ForCausalLM, Qwen2Config(**SHAPE, tie_word_embeddings=True)),
    ],
)
def test_relatives_become_the_same_function(kind, config):
    torch.manual_seed(0)
    model = randomise_biases(kind(config))
    llama = as_llama(model, "relative")
    assert type(llama) is LlamaForCausalLM
    assert llama.config.model_type == "llama"
    with torch.no_grad():
        assert torch.equal(llama(IDS).logits, model(IDS).logits)


def test_a_sliding_window_shortens_the_context():
    model = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=32)).eval()
    llama = as_llama(model, "windowed")
    assert llama.config.max_position_embeddings == 32
    ids = torch.arange(31)[None] + 3
    with torch.no_grad():
        torch.testing.assert_close(llama(ids).logits, model(ids).logits)


def test_marks_of_quantisation_are_gone():
    model = tiny_llama()
    model.config.quantization_config = {"quant_method": "gguf"}
    assert not hasattr(as_llama(model, "quantised").config, "quantization_config")


def test_other_architectures_are_named_with_what_is_supported():
    with pytest.raises(UserError, match=r"is a gpt2 model.*llama, poly_llama, mistral, qwen2"):
        check_family(GPT2Config(), "somebody/gpt2")


def test_other_activations_are_named():
    config = tiny_llama().config
    config.hidden_act = "gelu"
    with pytest.raises(UserError, match="gelu"):
        check_family(config, "a gelu llama")
