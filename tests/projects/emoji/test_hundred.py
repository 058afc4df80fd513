"""The hundred prompts are the same each time, and others by another seed."""

from projects.emoji import hundred


def test_the_seed_alone_chooses_a_hundred_prompts(art, monkeypatch):
    monkeypatch.setattr(hundred, "usable", lambda art, held_out: art.indexes(held_out=held_out))
    first, again, other = (hundred.prompts(art, seed) for seed in (0, 0, 1))
    assert len(first) == 100
    assert first == again != other
    assert any(" and " in prompt for prompt in first)
    assert any("background" in prompt for prompt in first)
