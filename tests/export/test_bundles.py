"""Bundles: the same bytes from the same run, checked wherever they are, and what they say of themselves."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgedafl.export import Artifacts, find_exporter, opened_bundle, read_bundle, student_to_onnx
from edgedafl.graph.edit import fix_batch
from edgedafl.runs import RunDirectory
from edgedafl.stages.export import artifacts_of
from edgedafl.students import build_student
from edgedafl.targets import find_target
from tests.conftest import assert_clean_failure, edgedafl, exported_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_onnx: Path) -> Path:
    return exported_run(tmp_path_factory.mktemp("bundle") / "run", tiny_onnx, "x86")


@pytest.fixture
def bundle(run: Path, tmp_path: Path) -> Path:
    place = tmp_path / "x86-64-vnni"
    shutil.copytree(run / "bundles" / "x86-64-vnni", place)
    return place


@pytest.mark.slow
def test_the_same_run_gives_the_same_archive(run: Path, tmp_path: Path) -> None:
    target = find_target("x86")
    artifacts = artifacts_of(RunDirectory(run), target, "int8")
    again = find_exporter("onnx").export(artifacts, target, tmp_path / "x86-64-vnni")
    assert again.archive.read_bytes() == (run / "bundles" / "x86-64-vnni.tar.gz").read_bytes()


@pytest.mark.slow
def test_a_whole_bundle_passes_as_folder_and_as_archive(run: Path, tmp_path: Path) -> None:
    for path in (run / "bundles" / "x86-64-vnni", run / "bundles" / "x86-64-vnni.tar.gz"):
        done = edgedafl("bundle", "verify", path, "--json")
        assert done.code == 0, done.err
        found = json.loads(done.out)
        assert set(found["answers"]) == {"model.fp32.onnx", "model.fp16.onnx", "model.int8.onnx"}
        assert all(answer["same_class"] == 1 for answer in found["answers"].values())


def change(bundle: Path, **entries: object) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, **entries}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda b: (b / "model.int8.onnx").write_bytes(b"x"), "model.int8.onnx of the bundle"),
        (lambda b: (b / "expected_io.npz").unlink(), "expected_io.npz is missing"),
        (lambda b: (b / "manifest.json").write_text("{"), "is not a bundle"),
        (lambda b: (b / "manifest.json").write_text("[]"), "is not a bundle"),
        (lambda b: change(b, schema=7), "of schema 7"),
        (lambda b: change(b, primary="../../etc/passwd"), "leads outside itself"),
        (lambda b: change(b, files={"../x": "0"}), "leads outside itself"),
        (lambda b: change(b, files={}), "no digest of"),
    ],
)
def test_a_damaged_bundle_is_refused(bundle: Path, spoil: Callable[[Path], object], word: str) -> None:
    spoil(bundle)
    assert_clean_failure(edgedafl("bundle", "verify", bundle), 2, word)


@pytest.mark.slow
def test_a_model_that_answers_differently_fails(bundle: Path) -> None:
    import hashlib

    # Whole by its digests, and still not the model whose answers are recorded.
    (bundle / "model.int8.onnx").write_bytes((bundle / "model.fp32.onnx").read_bytes())
    blob = (bundle / "model.fp32.onnx").read_bytes()
    manifest = json.loads((bundle / "manifest.json").read_text())
    variants = [{**v, "tolerance": 1e-9} for v in manifest["variants"]]
    files = {**manifest["files"], "model.int8.onnx": hashlib.sha256(blob).hexdigest()}
    change(bundle, files=files, variants=variants)
    assert_clean_failure(edgedafl("bundle", "verify", bundle), 1, "model.int8.onnx against expected_io")


def archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    "members",
    [
        [(tarfile.TarInfo("../evil"), b"x")],
        [(tarfile.TarInfo("/tmp/evil"), b"x")],
        [(link("b/model.onnx", "/etc/passwd"), b"")],
        [(tarfile.TarInfo("one/a"), b""), (tarfile.TarInfo("two/a"), b"")],
        [],
    ],
)
def test_archives_that_lead_outside_are_refused(tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    path = archive(tmp_path / "b.tar.gz", members)
    assert_clean_failure(edgedafl("bundle", "verify", path), 2, "b.tar.gz")
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", gzip.compress(b"no tar", mtime=0)])
def test_files_that_are_no_archives_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.tar.gz"
    path.write_bytes(content)
    assert_clean_failure(edgedafl("bundle", "verify", path), 2)


@pytest.mark.slow
def test_an_archive_with_a_stowaway_is_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "extra.sh").write_text("echo hi")
    path = tmp_path / "b.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(bundle, arcname="x86-64-vnni")
    assert_clean_failure(edgedafl("bundle", "verify", path), 2, "'extra.sh', which its manifest does not list")


@pytest.mark.slow
def test_the_bill_of_materials_follows_its_schema_and_names_every_file(run: Path) -> None:
    cyclonedx = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    bundle = read_bundle(run / "bundles" / "x86-64-vnni")
    text = (bundle.directory / "sbom.cdx.json").read_text()
    problem = cyclonedx.JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, problem
    document = json.loads(text)
    files = {c["name"]: c["hashes"][0]["content"] for c in document["components"] if c["type"] == "file"}
    assert files == {n: d for n, d in bundle.manifest["files"].items() if n != "sbom.cdx.json"}
    packages = {c["name"] for c in document["components"] if c["type"] == "library"}
    assert {"torch", "onnx", "onnxruntime"} <= packages


@pytest.mark.slow
def test_the_model_card_says_what_is_known_and_what_is_not(run: Path) -> None:
    card = (run / "bundles" / "x86-64-vnni" / "model-card.md").read_text()
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["teacher"]["sha256"] in card
    assert "It is not accuracy" in card
    assert "of the MACs in integers" in card


@pytest.mark.slow
def test_bench_runs_without_the_package(bundle: Path) -> None:
    command = [sys.executable, "-I", str(bundle / "bench"), "--quick", "--output", str(bundle / "latency.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    found = json.loads((bundle / "latency.json").read_text())
    assert set(found["samples_ns"]) == {"fp32", "fp16", "int8"}
    assert found["environment"]["facts"]["machine"]
    sizes = {precision: (bundle / f"model.{precision}.onnx").stat().st_size for precision in found["samples_ns"]}
    # On Linux; a model that is open takes its weights at least, and a small one no more than its runtime does.
    assert all(sizes[name] <= found["memory_bytes"][name] < 100_000_000 for name in sizes)


def phone_artifacts(shape: tuple[int, int, int]) -> Artifacts:
    """A LeNet with noise for weights and for images."""
    torch.manual_seed(0)
    model = fix_batch(student_to_onnx(build_student("lenet5-half", shape, 5).module, shape), 1)
    images = np.random.default_rng(0).normal(size=(32, *shape)).astype(np.float32)
    unit = {"scale": [1.0], "offset": [0.0]}
    # The int8 entry only says that int8 is wanted: ExecuTorch makes its own.
    return Artifacts({"fp32": model, "int8": model}, "int8", "lenet5-half", unit, images[:4], calibration=images)


def executorch_reason() -> str:
    import importlib.util

    return "" if importlib.util.find_spec("executorch") else "executorch is not installed"


@pytest.mark.slow
@pytest.mark.skipif(bool(executorch_reason()), reason=executorch_reason() or "-")
def test_executorch_bundles_answer_as_the_student_does(tmp_path: Path) -> None:
    from edgedafl.graph.runtime import open_session, run_batched

    target = find_target("phone")
    made = find_exporter("executorch").export(phone_artifacts((1, 32, 32)), target, tmp_path / "phone")
    assert (made.manifest["runtime"], made.manifest["omitted"]) == ("executorch", {})
    assert made.manifest["primary"] == "model.int8.pte"
    with opened_bundle(made.archive) as bundle, np.load(bundle.directory / "expected_io.npz") as data:
        float_model = phone_artifacts((1, 32, 32)).models["fp32"]
        expected = run_batched(open_session(float_model), data["image"], batch=1)
        scale = np.abs(expected).max()
        assert np.abs(data["fp32"] - expected).max() < 1e-4 * scale
        assert np.abs(data["int8"] - expected).max() < 0.1 * scale
    done = edgedafl("bundle", "verify", made.archive)
    assert done.code == 0, done.err
    measured = edgedafl("profile", made.directory, "--quick", "--allow-contended", "--json")
    assert measured.code == 0, measured.err
    assert json.loads(measured.out)["measured"]["environment"]["runtime"].startswith("executorch")


@pytest.mark.slow
@pytest.mark.skipif(bool(executorch_reason()), reason=executorch_reason() or "-")
def test_executorch_ships_fp32_alone_where_xnnpack_cannot_take_int8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgedafl_exporters.child import ChildExporter, StepError

    step = ChildExporter.step

    def without_int8(self: ChildExporter, *arguments: str) -> None:
        if arguments[0] == "build" and arguments[-1] == "int8":
            raise StepError("Missing out variants")
        step(self, *arguments)

    monkeypatch.setattr(ChildExporter, "step", without_int8)
    made = find_exporter("executorch").export(phone_artifacts((1, 32, 32)), find_target("phone"), tmp_path / "phone")
    assert made.manifest["primary"] == "model.fp32.pte"
    assert [v["precision"] for v in made.manifest["variants"]] == ["fp32"]
    assert "Missing out variants" in made.manifest["omitted"]["int8"]


def test_a_missing_executorch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from edgedafl.errors import EnvironmentMissingError
    from edgedafl_exporters.executorch import ExecuTorchExporter

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentMissingError, match="not installed") as caught:
        ExecuTorchExporter().step("build")
    assert "edgedafl[executorch]" in caught.value.hint
