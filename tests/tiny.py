"""Random Llamas small enough that a test with one takes milliseconds, and a tokenizer to go with them."""

from __future__ import annotations

from pathlib import Path

import torch

import mpcbench.compat  # noqa: F401  (before transformers)

# isort: split

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def tiny_llama(
    seed: int = 0,
    layers: int = 2,
    hidden: int = 16,
    intermediate: int = 24,
    heads: int = 4,
    kv_heads: int = 2,
    vocab: int = 64,
    tied: bool = True,
) -> LlamaForCausalLM:
    """A random Llama in float32 and evaluation mode, with weights large enough for SiLU to matter."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def tiny_tokenizer(vocab: int = 64) -> PreTrainedTokenizerFast:
    """A word tokenizer that knows ``w3 w4 ...``; words it does not know are token 0."""
    words = ["<pad>", "<s>", "</s>"] + [f"w{index}" for index in range(3, vocab)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<pad>"
    )


def tiny_texts(count: int = 24, words: int = 20, vocab: int = 64, seed: int = 0) -> list[str]:
    """Random passages in the tiny tokenizer's words."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(3, vocab, (count, words), generator=generator)
    return [" ".join(f"w{token}" for token in row) for row in draws.tolist()]


def tiny_folder(folder: Path, **settings) -> Path:
    """A tiny Llama and its tokenizer, saved as a checkpoint folder; settings as in :func:`tiny_llama`."""
    model = tiny_llama(**settings)
    model.save_pretrained(folder)
    tiny_tokenizer(model.config.vocab_size).save_pretrained(folder)
    return folder
