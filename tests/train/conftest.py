"""A tiny trainable model folder, shared by the tests of training."""

from pathlib import Path

import pytest
import small_model
import torch


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of four layers, stored in bfloat16, and nano's tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return small_model.save(folder, dtype=torch.bfloat16, tie_word_embeddings=True, initializer_range=0.02)
