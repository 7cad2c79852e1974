"""Values moved to what BatchNorms promise of real data, in the whole network and in a cut one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgedafl.graph.canonicalize import IMAGE, LOGITS, canonicalize
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.facts import ImageInput
from edgedafl.graph.from_module import module_to_onnx
from edgedafl.graph.moments import batch_norm_moments
from edgedafl.graph.pruning import find_movements
from edgedafl.students import Pruner

SHAPE = (3, 12, 12)


def _network(*, by_us: bool = False):
    """A network whose BatchNorms have seen bright images, its graph, and what they promise."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.5, 0.5)
        for _ in range(60):
            net(2 + torch.rand(64, *SHAPE))
    net.eval()
    zeros = torch.zeros(2, *SHAPE)
    kept, folded = (
        module_to_onnx(net, zeros, input_name=IMAGE, output_name="s", optimize=optimize) for optimize in (False, True)
    )
    image = ImageInput(IMAGE, (None, *SHAPE), "FLOAT", "NCHW", SHAPE, None)
    # Folded by torch a value has the BatchNorm's name, folded by us the convolution's.
    theirs, ours = canonicalize(folded, image, "s"), canonicalize(kept, image, "s")
    assert {*batch_norm_moments(kept, theirs)}.isdisjoint(batch_norm_moments(kept, ours))
    return (ours, batch_norm_moments(kept, ours)) if by_us else (theirs, batch_norm_moments(kept, theirs))


@pytest.mark.parametrize("by_us", [False, True])
def test_moved_values_have_the_promised_moments_layer_behind_layer(by_us: bool) -> None:
    graph, promised = _network(by_us=by_us)
    module = OnnxModule(graph, keep=promised)
    noise = torch.randn(256, *SHAPE)
    movements = find_movements(module, noise, promised)
    assert set(movements) == set(promised) and len(promised) == 2
    with torch.no_grad():
        moved, plain = module.run({IMAGE: noise}, movements), module.run({IMAGE: noise})
    for name, wanted in promised.items():
        deviation, mean = torch.std_mean(moved[name], (0, 2, 3))
        torch.testing.assert_close(mean, torch.from_numpy(wanted.mean).float(), atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(deviation, torch.from_numpy(wanted.deviation).float(), atol=2e-3, rtol=2e-3)
        assert (plain[name].mean((0, 2, 3)) - mean).abs().max() > 0.3


def test_nothing_is_promised_and_nothing_moves() -> None:
    graph, _ = _network()
    assert find_movements(OnnxModule(graph), torch.rand(8, *SHAPE), {}) == {}


def test_a_cut_student_moves_what_it_has_left_while_it_learns_and_nothing_afterwards() -> None:
    graph, promised = _network()
    noise = 0.3 * torch.randn(128, *SHAPE)
    pruner = Pruner.of(graph, noise, noise[:32], 4, promised=promised)
    whole, cut = pruner.student("kept:1"), pruner.student("pruned:0.5")
    assert whole.layers is not None and whole.layers.moves
    with torch.no_grad():
        wanted = pruner.module.run({IMAGE: noise}, pruner.movements)[LOGITS]
        learning, done = whole.module.train()(noise), whole.module.eval()(noise)
        torch.testing.assert_close(learning, wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(done, pruner.module.run({IMAGE: noise})[LOGITS], atol=1e-4, rtol=1e-4)
        assert (learning - done).abs().max() > 0.1
        assert (cut.module.train()(noise) - cut.module.eval()(noise)).abs().max() > 0.1
        shown = cut.layers.teacher_features(noise)[LOGITS]  # type: ignore[union-attr]
        torch.testing.assert_close(shown, wanted, atol=1e-4, rtol=1e-4)
    assert len(cut.module.state_dict()) == len(whole.module.state_dict())  # movements are not weights
