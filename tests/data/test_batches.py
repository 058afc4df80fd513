"""What a step of training is given."""

import pytest
import torch

from muse.data.batches import TokenBatch


def test_a_batch_without_high_resolution_tokens_says_so_when_they_are_asked_for():
    low = torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="make a token cache with both VQGANs"):
        _ = TokenBatch(low, ["a", "b"]).high_tokens
    assert TokenBatch(low, ["a", "b"], low + 1).high_tokens.equal(low + 1)
