from projects.emoji.splits import held_out_family, held_out_pairs, is_held_out_count, is_held_out_pair, stable_fraction

FAMILIES = ("fluent", "noto", "noto-v1", "twemoji", "emojione")
CONCEPTS = [f"concept {number}" for number in range(2000)]


def test_the_hash_never_changes():
    assert stable_fraction("concept", "red apple") == 0.3929348943948536
    assert stable_fraction("count", "octopus", 3) == 0.7816704160759711


def test_known_choices_never_change():
    chosen = {concept: held_out_family(concept, FAMILIES) for concept in ("cat", "pizza", "rocket", "octopus", "owl")}
    assert chosen == {"cat": None, "pizza": None, "rocket": "fluent", "octopus": "fluent", "owl": "noto-v1"}


def test_about_three_concepts_in_ten_hold_one_family_out():
    pairs = held_out_pairs(dict.fromkeys(CONCEPTS, FAMILIES))
    assert len({concept for concept, _ in pairs}) == len(pairs)
    assert 0.27 < len(pairs) / len(CONCEPTS) < 0.33
    assert {family for _, family in pairs} == set(FAMILIES)


def test_a_concept_of_two_families_holds_nothing_out():
    assert not held_out_pairs(dict.fromkeys(CONCEPTS, ("fluent", "noto", "fluent")))


def test_the_order_of_families_does_not_matter():
    assert all(held_out_family(c, FAMILIES) == held_out_family(c, FAMILIES[::-1]) for c in CONCEPTS[:200])


def test_a_tenth_of_the_counts_is_held_out_and_never_a_single_copy():
    held_out = sum(is_held_out_count(concept, count) for concept in CONCEPTS for count in (2, 3, 4))
    assert 0.09 < held_out / (3 * len(CONCEPTS)) < 0.11
    assert not any(is_held_out_count(concept, 1) for concept in CONCEPTS)


def test_an_arrangement_is_held_out_whichever_item_is_named_first():
    for first, second in zip(CONCEPTS[::2], CONCEPTS[1::2], strict=True):
        assert is_held_out_pair(first, second, "left") == is_held_out_pair(second, first, "right")
        assert is_held_out_pair(first, second, "above") == is_held_out_pair(second, first, "below")
        assert is_held_out_pair(first, second, "and") == is_held_out_pair(second, first, "and")
