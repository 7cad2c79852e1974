"""Files and modules in the forms that exporters, hubs and training scripts leave them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgedafl.errors import UnsupportedModelError, UsageError
from edgedafl.graph.executor import OnnxModule
from edgedafl.graph.load import load_onnx
from edgedafl.graph.runtime import open_session
from edgedafl.teachers import Teacher, TeacherOptions, load_onnx_teacher, load_runtime_teacher, load_torch_teacher
from tests.conftest import LINEAR, export, tiny_text

Save = Callable[..., Path]


def images(count: int = 3, channels: int = 1, side: int = 16) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def plain(save: Save) -> Tensor:
    """What the linear classifier of the fixtures answers."""
    return load_onnx_teacher(save(tiny_text(LINEAR), "plain.onnx")).scores(images())


def test_nodes_may_stand_in_any_order(save: Save) -> None:
    body = "f = Flatten(image) h = Gemm<transB=1>(f, w, b) r = Relu(h) scores = Add(h, r)"
    wanted = load_onnx_teacher(save(tiny_text(body), "sorted.onnx")).scores(images())
    model = tiny_text(body)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    path = save(model, "reversed.onnx")
    torch.testing.assert_close(load_onnx_teacher(path).scores(images()), wanted)
    assert [node.op_type for node in load_onnx(path).model.graph.node] == ["Flatten", "Gemm", "Relu", "Add"]


def test_nodes_in_a_ring_are_damage(save: Save) -> None:
    model = tiny_text("f = Flatten(image) h = Gemm<transB=1>(f, w, b) x = Add(h, y) y = Relu(x) scores = Add(x, y)")
    with pytest.raises(UnsupportedModelError, match="reads 'y', which nothing produces"):
        load_onnx(save(model))


@pytest.mark.parametrize("beside", [True, False])
def test_a_hubs_cache_holds_links_into_one_folder(tmp_path: Path, beside: bool) -> None:
    model, blobs = tiny_text(LINEAR), tmp_path / "blobs"
    weight, elsewhere = model.graph.initializer[0], tmp_path / ("blobs" if beside else "elsewhere")
    exact = numpy_helper.to_array(weight)
    for folder in (blobs, elsewhere, tmp_path / "snapshot"):
        folder.mkdir(exist_ok=True)
    (elsewhere / "22").write_bytes(weight.raw_data)
    onnx.external_data_helper.set_external_data(weight, "model.onnx_data", 0, len(weight.raw_data))
    weight.ClearField("raw_data")
    (blobs / "11").write_bytes(model.SerializeToString())
    (tmp_path / "snapshot" / "model.onnx").symlink_to("../blobs/11")
    (tmp_path / "snapshot" / "model.onnx_data").symlink_to(elsewhere / "22")
    if beside:
        found = load_onnx(tmp_path / "snapshot" / "model.onnx").model
        np.testing.assert_array_equal(numpy_helper.to_array(found.graph.initializer[0]), exact)
    else:
        with pytest.raises(UnsupportedModelError, match="outside the model's folder"):
            load_onnx(tmp_path / "snapshot" / "model.onnx")


def test_range_counts_in_the_type_of_its_limits() -> None:
    body = "r = Range(a, z, s) scores = Add(image, r)"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[N,4] image) => (float[N,4] scores) {{ {body} }}'
    )
    for name, value in (("a", 0.5), ("z", 2.4), ("s", 0.5)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    found = OnnxModule(model).run({"image": torch.zeros(2, 4)})["scores"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([[0.5, 1.0, 1.5, 2.0]]).expand(2, 4))


def text_output(save: Save) -> Path:
    """Labels as text and scores as maps beside each other, as a cloud's exporter writes them."""
    model = tiny_text("f = Flatten(image) h = Gemm<transB=1>(f, w, b) p = Softmax(h)", outputs="float[N,3] p")
    names = ["ape", "bee", "cat"]
    graph = model.graph
    graph.node.append(helper.make_node("ArgMax", ["p"], ["index"], axis=1, keepdims=0))
    label = helper.make_node("LabelEncoder", ["index"], ["label"], domain="ai.onnx.ml")
    label.attribute.append(helper.make_attribute("keys_int64s", [0, 1, 2]))
    label.attribute.append(helper.make_attribute("values_strings", names))
    zipped = helper.make_node("ZipMap", ["p"], ["loss"], domain="ai.onnx.ml")
    zipped.attribute.append(helper.make_attribute("classlabels_strings", names))
    graph.node.extend([label, zipped])
    del graph.output[:]
    maps = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    graph.output.append(helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]))
    graph.output.append(helper.make_value_info("loss", helper.make_sequence_type_proto(maps)))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    return save(model, "service.onnx")


def test_scores_are_found_behind_maps_from_classes_to_scores(save: Save) -> None:
    path = text_output(save)
    teacher = load_onnx_teacher(path)
    assert teacher.spec.output == "probabilities"
    wanted = torch.log_softmax(plain(save), 1)
    torch.testing.assert_close(torch.log_softmax(teacher.scores(images()), 1), wanted, rtol=1e-4, atol=1e-4)
    asked = load_runtime_teacher(path, TeacherOptions(input_range=(0.0, 1.0), output_name="loss"))
    assert asked.spec.num_classes == 3
    with pytest.raises(UnsupportedModelError, match="'label' answers text"):
        load_runtime_teacher(path, TeacherOptions(output_name="label"))


def trainer(save: Save) -> Path:
    """The graph of a training script: labels feed an accuracy."""
    body = (
        "f = Flatten(image) scores = Gemm<transB=1>(f, w, b) i = ArgMax<axis=1, keepdims=0>(scores) "
        "e = Equal(i, truth) x = Cast<to=1>(e) accuracy = ReduceMean<keepdims=0>(x)"
    )
    inputs = "int64[N] truth, float[N,1,16,16] image"
    return save(tiny_text(body, inputs, "float accuracy, float[N,3] scores"), "trainer.onnx")


@pytest.mark.parametrize("named", [{"output_name": "scores"}, {"input_name": "image"}])
def test_inputs_that_the_scores_do_not_need_do_not_count(save: Save, named: dict[str, str]) -> None:
    torch.testing.assert_close(load_onnx_teacher(trainer(save), TeacherOptions(**named)).scores(images()), plain(save))


def test_inputs_that_the_scores_need_are_named(save: Save) -> None:
    body = "f = Flatten(image) g = Mul(f, keep) scores = Gemm<transB=1>(g, w, b)"
    with pytest.raises(UnsupportedModelError, match=r"need 2 inputs \(image, keep\)"):
        load_onnx_teacher(save(tiny_text(body, "float[N,1,16,16] image, float keep")))


def test_sigmoids_that_always_say_no_are_the_same_where_they_say_it_a_little_differently(save: Save) -> None:
    model = tiny_text("f = Flatten(image) h = Gemm<transB=1>(f, w, b) scores = Sigmoid(h)")
    shifted = numpy_helper.to_array(model.graph.initializer[1]) - 21
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(shifted, "b"))
    teacher = load_onnx_teacher(save(model))
    torch.testing.assert_close(teacher.scores(images()), plain(save) - 21, rtol=1e-3, atol=1e-3)


def test_a_softmax_of_a_softmax_leads_back_to_the_logits(save: Save) -> None:
    model = tiny_text("f = Flatten(image) h = Gemm<transB=1>(f, w, b) p = Softmax(h) scores = Softmax(p)")
    teacher = load_onnx_teacher(save(model, "twice.onnx"))
    assert teacher.spec.has_features
    torch.testing.assert_close(teacher.scores(images()), plain(save))


def test_scores_in_whole_numbers_are_scores(save: Save) -> None:
    body = "f = Flatten(image) h = Gemm<transB=1>(f, w, b) p = Softmax(h) q = Mul(p, k) scores = Cast<to=2>(q)"
    model = tiny_text(body, outputs="uint8[N,3] scores")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(255), "k"))
    teacher = load_runtime_teacher(save(model), TeacherOptions(input_range=(0.0, 1.0)))
    assert (teacher.spec.access, teacher.spec.num_classes) == ("scores", 3)
    assert torch.equal(teacher.scores(images()).argmax(1), plain(save).argmax(1))


@pytest.mark.parametrize("where", ["bias", "mask"])
def test_a_class_that_is_never_answered_has_a_finite_score(save: Save, where: str) -> None:
    if where == "bias":
        model = tiny_text(LINEAR)
        model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([0.1, -np.inf, -0.1], np.float32), "b"))
    else:
        model = tiny_text("f = Flatten(image) h = Gemm<transB=1>(f, w, b) scores = Where(m, h, out)")
        model.graph.initializer.append(numpy_helper.from_array(np.array([True, False, True]), "m"))
        model.graph.initializer.append(numpy_helper.from_array(np.float32(-np.inf), "out"))
    scores, wanted = load_onnx_teacher(save(model)).scores(images()), plain(save)
    assert torch.isfinite(scores).all()
    assert (scores[:, 1] < scores[:, [0, 2]].min() - 20).all()
    torch.testing.assert_close(scores[:, [0, 2]], wanted[:, [0, 2]])


def test_a_file_of_doubles_answers_as_one_of_floats(tmp_path: Path, save: Save) -> None:
    model = tiny_text(LINEAR, "double[N,1,16,16] image", "double[N,3] scores")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    torch.testing.assert_close(load_onnx_teacher(save(model, "double.onnx")).scores(images()), plain(save))


def test_channels_stand_last_where_the_graph_brings_them_to_the_front(tmp_path: Path) -> None:
    class Bands(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(12, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.net((x * 2).permute(0, 3, 1, 2))

    teacher = load_onnx_teacher(export(Bands(), tmp_path / "bands.onnx", (16, 16, 12)))
    assert (teacher.spec.layout, teacher.spec.input_shape) == ("NHWC", (12, 16, 16))


def test_pixels_that_go_in_as_they_are_take_no_mean(save: Save) -> None:
    body = "f = Flatten(image) g = Cast<to=1>(f) scores = Gemm<transB=1>(g, w, b)"
    path = save(tiny_text(body, "uint8[N,1,16,16] image"))
    assert load_onnx_teacher(path).spec.preprocess.high == (255.0,)
    with pytest.raises(UsageError, match="go in as they are"):
        load_onnx_teacher(path, TeacherOptions(mean=(0.5,)))


def test_statistics_of_the_batch_are_refused(save: Save) -> None:
    body = "f = Flatten(image) m = ReduceMean<keepdims=1>(f, first) c = Sub(f, m) scores = Gemm<transB=1>(c, w, b)"
    model = tiny_text(body)
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "first"))
    with pytest.raises(UnsupportedModelError, match="when others stand beside it"):
        load_onnx_teacher(save(model))


def test_what_is_missing_of_the_standard_is_not_called_foreign(save: Save) -> None:
    model = tiny_text("f = Flatten(image) d = Det(f) scores = Gemm<transB=1>(d, w, b)")
    with pytest.raises(UnsupportedModelError, match="Det") as caught:
        load_onnx_teacher(save(model))
    assert "standard operators" not in caught.value.hint


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_attention_is_what_its_formula_says(heads: tuple[int, int]) -> None:
    many, few = heads
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=many, kv_num_heads=few)
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "qkvy"]
    graph = helper.make_graph([node], "g", kinds[:3], kinds[3:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    sizes = (many, few, few)
    feeds = {n: torch.randn(2, 5, 3 * count) for n, count in zip("qkv", sizes, strict=True)}
    found = OnnxModule(model).run(feeds)["y"]
    wanted = open_session(model).run(["y"], {n: x.numpy() for n, x in feeds.items()})[0]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_stored_integers_are_read_at_any_opset() -> None:
    """ONNX's own evaluator begins with opset 19 there; graphs for devices have 18."""
    model = tiny_text("x = DequantizeLinear(q, s, z) y = Flatten(image) scores = MatMul(y, x)")
    for name, value in (("q", np.arange(768, dtype=np.uint8).reshape(256, 3)), ("z", np.uint8(3))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "s"))
    found = OnnxModule(model).run({"image": images()})["scores"]
    stored = torch.arange(768, dtype=torch.uint8).reshape(256, 3).float()
    torch.testing.assert_close(found, images().flatten(1) @ (0.5 * (stored - 3)))


class Wrapped(nn.Module):
    """Answers its scores within something else."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.how = nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), how

    def forward(self, x: Tensor) -> object:
        y = self.net(x)
        forms = {"dictionary": {"logits": y}, "object": SimpleNamespace(logits=y), "tuple": (y, 2 * y), "list": [y]}
        return forms.get(self.how, y)


def dictionary() -> nn.Module:
    return Wrapped("dictionary")


def object_() -> nn.Module:
    return Wrapped("object")


def tuple_() -> nn.Module:
    return Wrapped("tuple")


def bare() -> nn.Module:
    return Wrapped("nothing")


def no_statistics() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(256, 3))


def wants_arguments(classes: int) -> nn.Module:
    return nn.Linear(256, classes)


def raises() -> nn.Module:
    raise RuntimeError("no such backbone")


def module_teacher(name: str, weights: Path | None = None) -> Teacher:
    options = TeacherOptions(input_shape=(1, 16, 16), input_range=(0.0, 1.0), weights=weights)
    return load_torch_teacher(f"tests.teachers.test_files_as_people_have_them:{name}", options)


@pytest.mark.parametrize("name", ["dictionary", "object_", "tuple_"])
def test_scores_within_something_else_are_found(name: str) -> None:
    teacher, wanted = module_teacher(name), module_teacher("bare")
    torch.testing.assert_close(teacher.scores(images()), wanted.scores(images()))
    assert teacher.network().graph.output[0].name == "logits"


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("no_statistics", UnsupportedModelError, "without running statistics"),
        ("wants_arguments", UsageError, "missing 1 required positional argument"),
        ("raises", UsageError, "failed with RuntimeError: no such backbone"),
    ],
)
def test_what_a_factory_does_wrong_is_said_to_be_its_own(name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        module_teacher(name)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "student.net."])
def test_weights_may_have_a_trainers_prefix(prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = Wrapped("nothing").state_dict()
    state = {name: value + 1 for name, value in state.items()}
    kept = {prefix + name: value for name, value in state.items()}
    others = {"metric.total": torch.ones(1)} if prefix else {}
    torch.save({"state_dict": {**kept, **others}}, tmp_path / "w.ckpt")
    teacher = module_teacher("bare", tmp_path / "w.ckpt")
    net = bare()
    net.load_state_dict(state)
    torch.testing.assert_close(teacher.scores(images()), net(images()))


def names_of_ours() -> Iterator[onnx.ModelProto]:
    yield tiny_text("f = Flatten(image) logits = Gemm<transB=1>(f, w, b) scores = Identity(logits)")
    yield tiny_text("image = Identity(x) f = Flatten(image) scores = Gemm<transB=1>(f, w, b)", "float[N,1,16,16] x")
    model = tiny_text("f = Flatten(x) scores = Gemm<transB=1>(f, image, logits)", "float[N,1,16,16] x")
    for tensor, name in zip(model.graph.initializer, ("image", "logits"), strict=True):
        tensor.name = name
    yield model


@pytest.mark.parametrize("model", names_of_ours())
def test_names_that_we_use_may_be_taken(model: onnx.ModelProto, save: Save) -> None:
    teacher, wanted = load_onnx_teacher(save(model, "named.onnx")), plain(save)
    network = teacher.network()
    found = OnnxModule(network).run({"image": images()})["logits"]
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("opset", [7, 9, 11, 12])
def test_dropout_of_any_opset_does_nothing(opset: int, save: Save) -> None:
    model = tiny_text("f = Flatten(image) d = Dropout(f) scores = Gemm<transB=1>(d, w, b)")
    model.opset_import[0].version = opset
    teacher = load_onnx_teacher(save(model, "dropped.onnx"))
    found = OnnxModule(teacher.network()).run({"image": images()})["logits"]
    torch.testing.assert_close(found, plain(save))


@pytest.mark.parametrize("opset", [18, 21])
def test_group_norm_is_brought_to_opset_18(opset: int, save: Save) -> None:
    size = 2 if opset == 18 else 4  # per group, per channel
    body = "c = Conv<pads=[1,1,1,1]>(image, k) n = GroupNormalization<num_groups=2>(c, s, t) f = Flatten(n) "
    model = tiny_text(body + "g = ReduceMean<keepdims=1>(f, last) scores = Mul(g, three)")
    model.opset_import[0].version = opset
    random = np.random.default_rng(1)
    for name, shape in (("k", (4, 1, 3, 3)), ("s", (size,)), ("t", (size,)), ("three", (1, 3))):
        model.graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "last"))
    teacher = load_onnx_teacher(save(model))
    network = teacher.network()
    assert network.opset_import[0].version == 18
    assert "GroupNormalization" not in {node.op_type for node in network.graph.node} or opset == 18
    found = OnnxModule(network).run({"image": images()})["logits"]
    torch.testing.assert_close(found, teacher.scores(images()), rtol=1e-4, atol=1e-4)
