"""Feature maps that everything behind them depends on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgedafl.graph.batch import value_shapes
from edgedafl.graph.bottlenecks import Bottleneck, Step, bottlenecks, graph_bottlenecks
from edgedafl.graph.canonicalize import IMAGE, LOGITS
from edgedafl.graph.from_module import module_to_onnx
from tests.conftest import tiny_text


def test_a_branch_carries_only_part_of_what_is_known() -> None:
    steps = [
        Step(["x", "w1"], ["stem"], weighted=True),
        Step(["stem", "w2"], ["inside"], weighted=True),
        Step(["inside", "stem"], ["sum"], weighted=False),
        Step(["sum"], ["relu"], weighted=False),
        Step(["relu", "w3"], ["y"], weighted=True),
    ]
    shape = (1, 4, 8, 8)
    maps = dict.fromkeys(("stem", "inside", "sum", "relu"), shape)
    stem, added, relu = (Bottleneck(name, 4, (8, 8)) for name in ("stem", "sum", "relu"))
    assert bottlenecks(steps, "x", maps) == [stem, relu]
    assert bottlenecks(steps, "x", {**maps, "relu": (1, 4)}) == [stem, added]
    # Read again by the last layer, the image itself passes by every value.
    assert bottlenecks([*steps[:-1], Step(["relu", "x"], ["y"], weighted=True)], "x", maps) == []


def test_of_a_graph_they_are_maps_that_layers_read() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.a(x))
            y = torch.relu(self.b(y) + y)
            return self.c(nn.functional.max_pool2d(y, 2).mean((2, 3)))

    model = module_to_onnx(Net().eval(), torch.zeros(2, 1, 8, 8), input_name=IMAGE, output_name=LOGITS)
    found = graph_bottlenecks(model, value_shapes(model, (1, 8, 8)))
    assert [(point.channels, point.size) for point in found] == [(4, (8, 8)), (4, (4, 4))]


def test_asking_for_a_shape_is_no_way_past_a_value() -> None:
    body = """
        k = Constant<value = float[2,1,3,3] {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9}>()
        a = Conv<pads = [1,1,1,1]>(image, k)
        s = Shape(a)
        r = Relu(a)
        p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(r)
        q = Reshape(r, s)
        f = GlobalAveragePool(q)
        logits = Flatten<axis = 1>(f)
    """
    model = tiny_text(body, outputs="float[N,2] logits")
    names = [p.name for p in graph_bottlenecks(model, value_shapes(model, (1, 16, 16)))]
    assert names == ["q"]
