"""Heads of attention are found in what exporters make of it, and cut as wholes."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgedafl.graph.batch import value_shapes
from edgedafl.graph.canonicalize import canonicalize
from edgedafl.graph.facts import ImageInput
from edgedafl.graph.pruning import ChannelMap, cut, trace_channels
from edgedafl.graph.runtime import open_session, run_batched

SHAPE = (3, 16, 16)
WIDTH, HEADS = 32, 4
DEPTH = WIDTH // HEADS
IMAGES = np.random.default_rng(0).random((3, *SHAPE), dtype=np.float32)


class Vision(nn.Module):
    """Patches, attention of one form, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, WIDTH, 4, 4), nn.LayerNorm(WIDTH)
        self.joint, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.classify = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        scores: Tensor = self.classify((x + self.attend(self.norm(x))).mean(1))
        return scores

    def attend(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Joint(Vision):
    """One layer for queries, keys and values, taken apart in five axes."""

    def attend(self, x: Tensor) -> Tensor:
        rows, tokens, _ = x.shape
        q, k, v = self.joint(x).reshape(rows, tokens, 3, HEADS, DEPTH).permute(2, 0, 3, 1, 4).unbind(0)
        seen = (q * DEPTH**-0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
        made: Tensor = self.out(seen.transpose(1, 2).reshape(rows, tokens, WIDTH))
        return made


class Chunked(Vision):
    """The same in three pieces, by the operator of PyTorch."""

    def attend(self, x: Tensor) -> Tensor:
        pieces = self.joint(x).chunk(3, -1)
        q, k, v = (piece.reshape(x.shape[0], -1, HEADS, DEPTH).transpose(1, 2) for piece in pieces)
        made: Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return made


class Separate(Vision):
    """Three layers, and the last side left open."""

    def __init__(self) -> None:
        super().__init__()
        self.apart = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(x.shape[0], -1, HEADS, DEPTH).transpose(1, 2) for layer in self.apart)
        seen = (torch.matmul(q, k.transpose(-1, -2)) / DEPTH**0.5).softmax(-1) @ v
        seen = seen.permute(0, 2, 1, 3).contiguous()
        made: Tensor = self.out(seen.view(seen.shape[0], seen.shape[1], -1))
        return made


class Ready(Vision):
    """PyTorch's own module: heads beside images, tokens first."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.out = self.attention.out_proj

    def attend(self, x: Tensor) -> Tensor:
        made: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return made


class NonLocal(nn.Module):
    """Attention of one head over the pixels of a convolutional network (arXiv 1711.07971)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 2, 1)
        self.q, self.k, self.v, self.out = (nn.Conv2d(*sides, 1) for sides in ((16, 8), (16, 8), (16, 12), (12, 16)))
        self.classify = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        q, k, v = (layer(x).flatten(2) for layer in (self.q, self.k, self.v))
        seen = (q.transpose(1, 2) @ k).softmax(-1) @ v.transpose(1, 2)
        made = self.out(seen.transpose(1, 2).reshape(x.shape[0], -1, x.shape[2], x.shape[3]))
        scores: Tensor = self.classify((x + made).mean((2, 3)))
        return scores


def exported(module: nn.Module, opset: int, *, scripted: bool) -> onnx.ModelProto:
    """The graph that a student starts from, of an export with a free batch."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if scripted:
            torch.onnx.export(
                module, (torch.zeros(1, *SHAPE),), file, opset_version=opset, dynamo=False,
                input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}},
            )  # fmt: skip
        else:
            torch.onnx.export(
                module, (torch.zeros(2, *SHAPE),), file, opset_version=opset, dynamo=True, verbose=False,
                input_names=["x"], output_names=["y"], dynamic_shapes=({0: torch.export.Dim("n")},),
            )  # fmt: skip
    model = onnx.load_from_string(file.getvalue())
    return canonicalize(model, ImageInput("x", (None, *SHAPE), "FLOAT", "NCHW", SHAPE, None), "y")


def traced(graph: onnx.ModelProto) -> ChannelMap:
    return trace_channels(graph, value_shapes(graph, SHAPE))


def answers(graph: onnx.ModelProto) -> np.ndarray:
    """From ONNX Runtime, for three images at once."""
    return run_batched(open_session(graph), IMAGES)


EXPORTS = [(11, True), (17, True), (18, False), (23, False)]


@pytest.mark.parametrize(("opset", "scripted"), EXPORTS)
@pytest.mark.parametrize("form", [Joint, Chunked, Separate, Ready])
def test_a_head_that_is_cut_is_a_head_that_says_nothing(form: type[Vision], opset: int, scripted: bool) -> None:
    if scripted and opset < 14 and form in (Chunked, Ready):
        pytest.skip("PyTorch exports this from opset 14 on")
    torch.manual_seed(0)
    module = form().eval()
    graph = exported(module, opset, scripted=scripted)
    channels = traced(graph)
    assert [len(group) for group in channels.groups] == [HEADS]
    (heads,) = channels.groups
    found = [answers(cut(graph, channels, frozenset({int(head)}))) for head in heads]
    weight, wanted = module.out.weight.detach().clone(), []
    for head in range(HEADS):
        with torch.no_grad():
            module.out.weight.copy_(weight)
            module.out.weight[:, head * DEPTH : (head + 1) * DEPTH] = 0
            wanted.append(module(torch.from_numpy(IMAGES)).numpy())
    matches = [[np.allclose(a, b, atol=1e-5) for b in wanted] for a in found]
    assert np.sum(matches, 0).tolist() == np.sum(matches, 1).tolist() == [1] * HEADS


def test_half_of_the_heads_leave_half_of_the_attentions_weights() -> None:
    graph = exported(Joint().eval(), 17, scripted=True)
    channels = traced(graph)
    small = cut(graph, channels, frozenset(channels.groups[0][: HEADS // 2].tolist()))
    sides = sorted(tuple(t.dims) for t in small.graph.initializer if len(t.dims) == 2)
    assert sides == sorted([(5, WIDTH), (WIDTH, 3 * WIDTH // 2), (WIDTH // 2, WIDTH)])


@pytest.mark.parametrize(("opset", "scripted"), EXPORTS)
def test_attention_over_pixels_is_cut_by_channels(opset: int, scripted: bool) -> None:
    torch.manual_seed(0)
    module = NonLocal().eval()
    graph = exported(module, opset, scripted=scripted)
    channels = traced(graph)
    groups = {len(group): sorted(group.tolist()) for group in channels.groups}
    assert sorted(groups) == [8, 12, 16]
    found = answers(cut(graph, channels, frozenset({groups[8][3], groups[12][5]})))
    with torch.no_grad():
        module.q.weight[3] = module.q.bias[3] = 0  # type: ignore[index]
        module.out.weight[:, 5] = 0
        wanted = module(torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
