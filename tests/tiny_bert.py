"""A transformer small enough for a test: random weights, saved by sentence-transformers itself."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def framing_tokenizer(model: Any) -> Tokenizer:
    """A tokenizer of a model of words that puts [CLS] before a text and [SEP] after it."""
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [(mark, tokenizer.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=marks)
    return tokenizer


def save_bert(root: Path, tokenizer: Tokenizer, positions: int) -> Path:
    """Save a BERT of 32 dimensions and two layers that reads `positions` tokens; its folder."""
    library = pytest.importorskip("sentence_transformers")
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
    )
    transformers.BertModel(config).save_pretrained(root / "plain")
    wrapped.save_pretrained(root / "plain")
    model = library.SentenceTransformer(str(root / "plain"), device="cpu")  # adds mean pooling
    model.save(str(root / "model"))
    return root / "model"
