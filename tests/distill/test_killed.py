"""Runs that are killed without warning and go on to the bitwise same student."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from edgedafl.distill.training.checkpoint import load_checkpoint
from tests.distill import killed

ROOT = Path(__file__).parents[2]
STEPS = 40


def process(teacher: Path, checkpoint: Path, method: str, out: Path) -> subprocess.Popen[bytes]:
    arguments = [str(teacher), str(checkpoint), method, str(STEPS), str(out)]
    return subprocess.Popen([sys.executable, "-m", "tests.distill.killed", *arguments], cwd=ROOT)


def kill_at_random(running: subprocess.Popen[bytes], checkpoint: Path, wait: float) -> bool:
    """SIGKILL some time after the first checkpoint; False if the run was over before."""
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(wait)
    alive = running.poll() is None
    running.kill()
    running.wait()
    return alive


@pytest.mark.slow
@pytest.mark.parametrize("method", ["adversarial", "fast", "inversion", "dfad", "pruned"])
def test_sigkill_at_random_points_changes_no_bit(method: str, bn_onnx: Path, tmp_path: Path) -> None:
    whole = killed.distiller(bn_onnx, method, STEPS, None)
    expected = whole.run().student.state_dict()
    checkpoint, out = tmp_path / "state.pt", tmp_path / "student.pt"
    chance = random.Random(method)
    kills = 0
    for _ in range(3):
        running = process(bn_onnx, checkpoint, method, out)
        kills += kill_at_random(running, checkpoint, chance.uniform(0.0, 1.0))
    assert kills >= 1
    assert load_checkpoint(checkpoint)["step"] > 0
    last = process(bn_onnx, checkpoint, method, out)
    assert last.wait(timeout=300) == 0
    found = torch.load(out, weights_only=True)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_checkpoint_before_stands_in_for_a_damaged_one(bn_onnx: Path, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    run = killed.distiller(bn_onnx, "adversarial", 4, file)
    run.run()
    run.budget = type(run.budget)(steps=6)
    run.run()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.before.pt", "state.pt"]
    file.write_bytes(file.read_bytes()[:1000])
    assert load_checkpoint(file)["step"] == 4
