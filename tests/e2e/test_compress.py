"""The main job end to end, on teachers that are learned within seconds."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgedafl.export import read_bundle
from edgedafl.graph.load import sha256_of
from tests.conftest import EXAMPLE, assert_clean_failure, edgedafl

STEPS = ["--min-fidelity", "0", "--steps", "60", "--quick", "--threads", "1", "--input-range", "0,1"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, tiny_onnx: Path) -> Path:
    """Images labelled by the teacher itself, so that it is always right."""
    from edgedafl.graph.runtime import open_session, run_batched

    images = np.random.default_rng(0).integers(0, 256, (200, 1, 16, 16), dtype=np.uint8)
    scores = run_batched(open_session(tiny_onnx), images.astype(np.float32) / 255)
    path = tmp_path_factory.mktemp("labelled") / "labelled.npz"
    np.savez(path, images=images, labels=scores.argmax(1))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_onnx: Path, labelled: Path) -> Path:
    output = tmp_path_factory.mktemp("runs") / "jetson"
    result = edgedafl(
        "compress",
        tiny_onnx,
        "--target",
        "jetson",
        "-o",
        output,
        "--eval",
        labelled,
        "--student",
        "resnet8:0.5",
        *STEPS,
    )
    assert result.code == 0, result.err
    assert "estimated for" in result.out and "not measured" in result.out
    return output


@pytest.mark.slow
def test_a_run_leaves_everything_the_design_says(run: Path) -> None:
    names = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    assert {
        "run.json",
        "config.toml",
        "metrics.jsonl",
        "student.onnx",
        "calibration.npz",
        "samples/classes.png",
    } <= names
    assert {"report.html", "report.md", "report.json", "profile/local.json"} <= names
    assert not {name for name in names if name.startswith("checkpoint")}, "only an unfinished run needs one"
    manifest = json.loads((run / "run.json").read_text())
    stages = manifest["stages"]
    assert list(stages)[:3] == ["distill", "quantize", "export"]
    for stage in stages.values():
        for file, digest in stage["outputs"].items():
            assert sha256_of(run / file) == digest
    assert stages["verify"]["result"]["accuracy"]["teacher"] == 1.0
    assert set(stages["verify"]["result"]["accuracy"]) == {"teacher", "fp32", "fp16", "int8"}
    assert stages["profile"]["result"]["estimate"]["kind"] == "estimate"
    assert stages["profile"]["result"]["measured"]["kind"] == "measured"
    assert stages["profile"]["result"]["measured"]["quick"] is True


@pytest.mark.slow
def test_the_report_is_one_safe_page(run: Path) -> None:
    html = (run / "report.html").read_text()
    assert 'http-equiv="Content-Security-Policy"' in html
    assert "<script" not in html
    assert not [url for url in ('src="http', 'href="http') if url in html]
    assert "data:image/png;base64," in html
    assert html.count("<svg") == 4
    assert "estimate, not measured" in html
    assert "edgedafl compress" in html
    markdown = (run / "report.md").read_text()
    assert "| File size |" in markdown
    assert "| Accuracy | 100.00 %" in markdown


@pytest.mark.slow
def test_html_is_escaped(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    manifest = json.loads((copy / "run.json").read_text())
    manifest["teacher"]["name"] = "<script>alert(1)</script>"
    (copy / "run.json").write_text(json.dumps(manifest))
    assert edgedafl("report", copy).code == 0
    assert "<script>" not in (copy / "report.html").read_text()
    assert "&lt;script&gt;" in (copy / "report.html").read_text()


@pytest.mark.slow
def test_finished_stages_are_not_run_again(run: Path, tiny_onnx: Path, labelled: Path) -> None:
    before = json.loads((run / "run.json").read_text())["stages"]["distill"]
    arguments = [
        "compress",
        tiny_onnx,
        "--target",
        "jetson",
        "-o",
        run,
        "--eval",
        labelled,
        "--student",
        "resnet8:0.5",
        *STEPS,
    ]
    stamp = (run / "student.onnx").stat().st_mtime_ns
    assert edgedafl(*arguments).code == 0
    assert (run / "student.onnx").stat().st_mtime_ns == stamp
    assert json.loads((run / "run.json").read_text())["stages"]["distill"] == before
    other = edgedafl(*arguments, "--seed", "7")
    assert_clean_failure(other, 2, "another configuration", "--force")


@pytest.mark.slow
def test_compress_ends_with_the_gate(run: Path, tiny_onnx: Path, labelled: Path, tmp_path: Path) -> None:
    config = tmp_path / "edgedafl.toml"
    config.write_text("[gate]\nmin_accuracy = '10%'\nmax_size = '1KB'\n")
    arguments = ["compress", tiny_onnx, "--target", "jetson", "-o", run, "--eval", labelled, "--student", "resnet8:0.5"]
    result = edgedafl(*arguments, *STEPS, "--config", config)
    assert result.code == 1, result.err
    assert f"raise max_size in {config}:3" in result.out
    assert "pass  accuracy" in result.out


@pytest.mark.slow
@pytest.mark.parametrize("target", ["jetson", "phone", "raspberry-pi", "rpi4", "x86"])
def test_every_target_gets_a_verified_bundle(run: Path, target: str) -> None:
    result = edgedafl("export", run, "--target", target, "--json")
    assert result.code == 0, result.err
    directory = run / result.json["directory"]
    bundle = read_bundle(directory)
    assert {"manifest.json", "expected_io.npz", "README.md", "bench"} <= {p.name for p in directory.iterdir()}
    assert bundle.manifest["precision"] == "int8"
    assert bundle.manifest["preprocess"]["scale"] == [pytest.approx(1 / 255)]
    verified = edgedafl("verify", run, "--target", target, "--json")
    assert verified.code == 0, verified.err
    assert min(verified.json["agreement"].values()) > 0.7
    if bundle.primary.suffix == ".onnx":
        model = onnx.load(bundle.primary)
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
        assert model.opset_import[0].version == bundle.manifest["opset"]


@pytest.mark.slow
def test_the_ort_format_on_request(run: Path) -> None:
    result = edgedafl("export", run, "--target", "raspberry-pi", "--exporter", "ort", "--json")
    assert result.code == 0, result.err
    bundle = read_bundle(run / result.json["directory"])
    assert bundle.primary.suffix == ".ort"
    assert edgedafl("verify", run, "--target", "raspberry-pi").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("target", ["x86-64-vnni", "jetson-orin-nano"])
def test_archives_are_reproducible(run: Path, tmp_path: Path, target: str) -> None:
    first = edgedafl("export", run, "--target", target, "--json").json
    archive = run / first["archive"]
    before = archive.read_bytes()
    archive.unlink()
    edgedafl("export", run, "--target", target)
    assert archive.read_bytes() == before
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    assert (tmp_path / target / "bench").stat().st_mode & 0o100
    assert gzip.decompress(before)[:5] == target.encode()[:5]


@pytest.mark.slow
def test_a_bundle_is_checked_and_timed_without_edgedafl(run: Path, tmp_path: Path) -> None:
    edgedafl("export", run, "--target", "x86")
    bench = run / "bundles" / "x86-64-vnni" / "bench"
    assert "edgedafl" not in "".join(line for line in bench.read_text().splitlines() if "import" in line)
    done = subprocess.run(
        [sys.executable, str(bench), "--quick", "--output", str(tmp_path / "l.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "l.json").read_text())
    counts = {name: len(values) for name, values in found["samples_ns"].items()}
    assert counts["fp32"] == counts["int8"] >= 200
    assert all(check["passed"] for check in found["checks"].values())


@pytest.mark.slow
def test_a_changed_bundle_is_noticed(run: Path, tmp_path: Path) -> None:
    import shutil

    edgedafl("export", run, "--target", "x86")
    copy = tmp_path / "bundle"
    shutil.copytree(run / "bundles" / "x86-64-vnni", copy)
    model = copy / "model.int8.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    assert_clean_failure(edgedafl("profile", copy, "--quick"), 2, "was changed")
    done = subprocess.run(
        [sys.executable, str(copy / "bench"), "--quick"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "was changed" in done.stderr


@pytest.mark.slow
def test_gate_diff_and_verify_on_runs(run: Path, tmp_path: Path) -> None:
    gate = edgedafl(
        "gate", run, "--max-size", "1MB", "--min-agreement", "50%", "--min-accuracy", "10%", "--format", "junit"
    )
    assert gate.code == 0, gate.out
    assert 'failures="0"' in gate.out
    strict = edgedafl("gate", run, "--max-latency", "1ns", "--json")
    assert (strict.code, strict.json["passed"]) == (1, False)
    diff = edgedafl("diff", run, run, "--json")
    assert [row["cells"][1]["change"] for row in diff.json if row["name"] == "file size"] == ["same"]
    models = run / "models" / "jetson-orin-nano"
    same = edgedafl("verify", models / "fp32.onnx", models / "fp16.onnx", "--calibration", run / "calibration.npz")
    assert same.code == 0, same.err
    other = edgedafl(
        "verify", models / "fp32.onnx", models / "int8.onnx", "--max-error", "1e-9", "--min-agreement", "50%"
    )
    assert_clean_failure(other, 1, "Relative error")


@pytest.mark.slow
def test_wrong_labelled_data_is_said_before_anything_is_lost(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrong.npz"
    np.savez(path, images=np.zeros((3, 1, 28, 28), np.uint8), labels=np.zeros(3))
    assert_clean_failure(edgedafl("verify", run, "--eval", path), 2, "the model takes uint8")
    assert (run / "student.onnx").exists()


@pytest.mark.slow
def test_the_example_teacher_is_learned_on_every_side() -> None:
    """Twenty seconds on the committed teacher; the full figures are the benchmark's."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        result = edgedafl(
            "compress", EXAMPLE / "teacher.onnx", "--target", "jetson", "-o", f"{folder}/run",
            "--input-mean", "0.1307", "--input-std", "0.3081", "--eval", EXAMPLE / "sample.npz",
            "--time-budget", "20s", "--quick", "--json",
        )  # fmt: skip
        assert result.code == 0, result.err
        accuracy = result.json["stages"]["verify"]["result"]["accuracy"]
        assert accuracy["teacher"] >= 0.98
        assert accuracy["fp32"] >= 0.85
        assert accuracy["fp32"] - accuracy["int8"] <= 0.02
        sizes = result.json["stages"]["export"]["result"]["sizes"]
        assert sizes["int8"] <= (EXAMPLE / "teacher.onnx").stat().st_size / 8
