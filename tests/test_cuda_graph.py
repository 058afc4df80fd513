"""Functions as CUDA graphs, as far as a processor can tell: what is copied where, and when a capture is made."""

import pytest
import torch

from muse.cuda_graph import Graph


class Recorded:
    """In the place of a CUDA graph: what was captured runs again on the very same tensors."""

    def __init__(self, graph):
        self.graph = graph

    def replay(self):
        for output, fresh in zip(self.graph.outputs, self.graph.function(*self.graph.inputs), strict=True):
            output.copy_(fresh)


def test_a_replay_takes_the_inputs_of_each_call_and_gives_outputs_of_its_own():
    graph = Graph(lambda a, b: (a + b, a * b), (torch.zeros(2), torch.zeros(2)))
    graph.outputs = tuple(torch.zeros(2) for _ in range(2))
    graph.graph = Recorded(graph)  # pyright: ignore[reportAttributeAccessIssue]
    first = graph(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    second = graph(torch.tensor([5.0, 6.0]), torch.tensor([7.0, 8.0]))
    assert [part.tolist() for part in first] == [[4, 6], [3, 8]]
    assert [part.tolist() for part in second] == [[12, 14], [35, 48]]


def test_inputs_of_another_shape_are_refused_with_one_sentence():
    graph = Graph(lambda a: (a,), (torch.zeros(2),))
    with pytest.raises(ValueError, match=r"^inputs of shapes \[\(3,\)\] came; this graph was captured for \[\(2,\)\]$"):
        graph(torch.zeros(3))
