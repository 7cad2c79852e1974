"""Two processes that train together, for real: gloo on loopback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgedafl.distill.distributed import DistributedContext, init_distributed
from edgedafl.distill.training.checkpoint import load_checkpoint, merged_pools, pool_part
from edgedafl.errors import EnvironmentMissingError
from tests.distill import together

ROOT = Path(__file__).parents[2]


def start(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def run_together(teacher: Path, out: Path, kind: str) -> list[dict[str, dict[str, torch.Tensor]]]:
    done = start(2, "-m", "tests.distill.together", str(teacher), str(out), kind)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out.with_suffix(f".{rank}"), weights_only=True) for rank in range(2)]


def test_two_processes_equal_one_with_the_doubled_batch(tiny_onnx: Path, tmp_path: Path) -> None:
    first, second = run_together(tiny_onnx, tmp_path / "state", "equal")
    alone = together.published(tiny_onnx, DistributedContext())
    images = together.steps(alone)
    # The generator is compared by what it makes: biases before a BatchNorm wander freely.
    torch.testing.assert_close(torch.cat([first["images"], second["images"]]), images, rtol=1e-3, atol=1e-4)
    start_of = together.published(tiny_onnx, DistributedContext()).trainer.student.state_dict()
    for name, value in alone.trainer.student.state_dict().items():
        torch.testing.assert_close(first["student"][name], second["student"][name], rtol=0, atol=0)
        torch.testing.assert_close(first["student"][name], value, rtol=2e-4, atol=2e-5)
    moved = max(float((alone.trainer.student.state_dict()[n] - v).abs().max()) for n, v in start_of.items())
    assert moved > 2e-3  # not equal because nothing happened


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_goes_on_in_one(tiny_onnx: Path, tmp_path: Path) -> None:
    out = tmp_path / "state"
    first, second = run_together(tiny_onnx, out, "pooled")
    assert all(torch.equal(first["student"][n], second["student"][n]) for n in first["student"])
    state = load_checkpoint(out.with_suffix(".checkpoint"))
    assert (state["step"], state["processes"]) == (12, 2)
    assert len(state["pool"]["pixels"]) == int(first["pool"]) + int(second["pool"])
    alone = together.pooled(tiny_onnx, DistributedContext(), out.with_suffix(".checkpoint"), 20).run(resume=True)
    assert alone.steps == 20
    assert len(alone.pool) == len(state["pool"]["pixels"]) + 8 * (16 + 6)


@pytest.mark.slow
def test_a_checkpoint_of_one_process_goes_on_in_two(tiny_onnx: Path, tmp_path: Path) -> None:
    out = tmp_path / "state"
    together.pooled(tiny_onnx, DistributedContext(), out.with_suffix(".checkpoint"), 6).run()
    before = load_checkpoint(out.with_suffix(".checkpoint"))
    first, second = run_together(tiny_onnx, out, "pooled")
    assert int(first["pool"]) + int(second["pool"]) == len(before["pool"]["pixels"]) + 2 * 6 * (16 + 6)
    assert load_checkpoint(out.with_suffix(".checkpoint"))["step"] == 12


@pytest.mark.slow
def test_torchrun_starts_the_command_line(tiny_onnx: Path, tmp_path: Path) -> None:
    done = start(
        2, "-m", "edgedafl", "distill", str(tiny_onnx), "--input-range", "0,1", "--student", "lenet5",
        "--min-fidelity", "0", "--steps", "12", "--threads", "1", "--accelerator", "cpu", "--output", str(tmp_path / "run"), "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("synthetic agreement") == 1
    assert (tmp_path / "run" / "student.onnx").is_file()
    again = start(
        2, "-m", "edgedafl", "distill", str(tiny_onnx), "--input-range", "0,1", "--student", "lenet5",
        "--min-fidelity", "0", "--steps", "12", "--threads", "1", "--accelerator", "cpu", "--output", str(tmp_path / "run"), "--quiet",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr[-3000:]


def test_pools_are_merged_and_parted() -> None:
    parts = [
        {"pixels": torch.full((n, 1, 2, 2), r, dtype=torch.uint8), "logits": torch.full((n, 3), float(r)), "added": n}
        for r, n in enumerate((5, 4))
    ]
    whole = merged_pools(parts)
    assert (whole["added"], whole["logits"][:, 0].tolist()) == (9, [0.0] * 5 + [1.0] * 4)
    cut = [pool_part(whole, DistributedContext(rank, 2)) for rank in range(2)]
    assert [p["added"] for p in cut] == [5, 4]
    assert sorted(torch.cat([p["logits"][:, 0] for p in cut]).tolist()) == sorted(whole["logits"][:, 0].tolist())


def test_a_missing_gpu_is_said_plainly() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EnvironmentMissingError, match="no CUDA device") as caught:
        init_distributed("cuda")
    assert "--accelerator cpu" in caught.value.hint
