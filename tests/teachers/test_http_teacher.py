"""Teachers on a server: the protocol, its faults, and the count of rows."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgedafl.distill import BlackBoxSettings, BlackBoxSynthesizer, Budget, Distiller
from edgedafl.errors import EdgeDaflError, MeasurementError, UnsupportedModelError, UsageError
from edgedafl.students import build_student
from edgedafl.teachers import TeacherOptions, load_http_teacher, load_onnx_teacher
from edgedafl.teachers.connection import Connection
from tests.conftest import ROOT

SERVER = ROOT / "tests" / "servers" / "kserve.py"
MLSERVER = ROOT / ".venv-server" / "bin" / "mlserver"
UNIT = {"input_range": (0.0, 1.0)}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start(model: Path, port: int, counter: Path, *flags: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, str(SERVER), str(model), str(port), str(counter), *flags])
    for _ in range(200):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)
    raise AssertionError("the server did not start")


@contextmanager
def serving(model: Path, folder: Path, *flags: str) -> Iterator[tuple[str, Path]]:
    port, counter = free_port(), folder / "rows.txt"
    process = start(model, port, counter, *flags)
    try:
        yield f"http://127.0.0.1:{port}/v2/models/net", counter
    finally:
        process.kill()
        process.wait()


def counted(counter: Path) -> int:
    return sum(int(line) for line in counter.read_text().split())


@pytest.mark.parametrize("flags", [(), ("--binary",)])
def test_a_served_model_answers_like_the_file(tiny_onnx: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    with serving(tiny_onnx, tmp_path, *flags) as (url, counter):
        teacher = load_http_teacher(url, TeacherOptions(**UNIT))
        assert (teacher.spec.input_shape, teacher.spec.num_classes) == ((1, 16, 16), 3)
        assert (teacher.spec.access, teacher.spec.output) == ("scores", "logits")
        pixels = torch.randint(0, 256, (70, 1, 16, 16), dtype=torch.uint8)
        images = teacher.spec.preprocess.from_pixels(pixels)
        expected = load_onnx_teacher(tiny_onnx, TeacherOptions(**UNIT)).scores(images)
        torch.testing.assert_close(teacher.scores(images), expected, rtol=1e-4, atol=1e-5)
        assert teacher.queries == counted(counter) == 70 + 8


def test_the_same_image_is_asked_about_once(tiny_onnx: Path, tmp_path: Path) -> None:
    with serving(tiny_onnx, tmp_path) as (url, counter):
        teacher = load_http_teacher(url, TeacherOptions(**UNIT))
        images = torch.rand(10, 1, 16, 16)
        first = teacher.scores(images)
        again = teacher.scores(torch.cat([images[5:], images[:7]]))
        assert torch.equal(again[:5], first[5:])
        assert teacher.queries == counted(counter) == 10 + 8


def test_busy_servers_are_asked_again(tiny_onnx: Path, tmp_path: Path) -> None:
    with serving(tiny_onnx, tmp_path, "--fail-every", "2") as (url, counter):
        teacher = load_http_teacher(url, TeacherOptions(**UNIT))
        for _ in range(5):
            teacher.scores(torch.rand(4, 1, 16, 16))
        assert teacher.queries == counted(counter) == 20 + 8


def test_batches_shrink_to_the_servers_limit(tiny_onnx: Path, tmp_path: Path) -> None:
    with serving(tiny_onnx, tmp_path, "--largest", "20") as (url, counter):
        teacher = load_http_teacher(url, TeacherOptions(**UNIT))
        assert teacher.scores(torch.rand(100, 1, 16, 16)).shape == (100, 3)
        assert counted(counter) == 108
        assert max(int(line) for line in counter.read_text().split()) <= 20


def test_labels_only(tiny_onnx: Path, tmp_path: Path) -> None:
    with serving(tiny_onnx, tmp_path, "--labels") as (url, _):
        with pytest.raises(UsageError, match="class indices only") as caught:
            load_http_teacher(url, TeacherOptions(**UNIT))
        assert "--classes" in caught.value.hint
        teacher = load_http_teacher(url, TeacherOptions(**UNIT, classes=3))
        images = torch.rand(20, 1, 16, 16)
        assert (teacher.spec.access, teacher.spec.output) == ("labels", "labels")
        expected = load_onnx_teacher(tiny_onnx, TeacherOptions(**UNIT))
        exact = teacher.spec.preprocess.from_pixels(teacher.spec.preprocess.to_pixels(images))
        assert torch.equal(teacher.scores(images).argmax(1), expected.scores(exact).argmax(1))


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        (("--nan",), UnsupportedModelError, "NaN"),
        (("--noise",), UnsupportedModelError, "different answers to the same images"),
        (("--other-protocol",), UnsupportedModelError, "another protocol"),
        (("--inputs", "2"), UnsupportedModelError, "takes 2 inputs"),
        (("--token", "secret-1"), UsageError, "refused the credentials (status 401)"),
        (("--metadata", "[]"), UnsupportedModelError, "describes no model"),
        (("--metadata", '{"inputs": null, "outputs": []}'), UsageError, "does not say what the model takes"),
        (("--metadata", '{"inputs": [{"name": "x"}], "outputs": []}'), UnsupportedModelError, "describes no model"),
        (("--metadata", '{"inputs": [3], "outputs": []}'), UnsupportedModelError, "describes no model"),
        (("--answer", "[]"), UnsupportedModelError, "holds no output"),
        (("--answer", '{"outputs": [3]}'), UnsupportedModelError, "holds no output"),
        (("--answer", '{"outputs": [{"name": "logits"}]}'), UnsupportedModelError, "holds no output"),
        (("--answer", "<html>"), UnsupportedModelError, "holds no output"),
        (("--answer", '{"error": "model raised ValueError"}'), UnsupportedModelError, "model raised ValueError"),
        (("--status", "500", "--words", "<h1>Oh <b>no</b></h1>"), UnsupportedModelError, "status 500: Oh no"),
        (("--status", "500", "--words", '{"error": "no attribute x"}'), UnsupportedModelError, "no attribute x"),
        (("--status", "400", "--words", "bearer abc is known"), UnsupportedModelError, "Bearer *** is known"),
    ],
)
def test_what_is_wrong_is_said(
    tiny_onnx: Path, tmp_path: Path, flags: tuple[str, ...], error: type[EdgeDaflError], words: str
) -> None:
    with serving(tiny_onnx, tmp_path, *flags) as (url, _), pytest.raises(error) as caught:
        load_http_teacher(url, TeacherOptions(**UNIT))
    assert words in caught.value.message


def test_what_a_server_does_not_say_can_be_declared(tiny_onnx: Path, tmp_path: Path) -> None:
    images = torch.rand(3, 1, 16, 16)
    expected = load_onnx_teacher(tiny_onnx, TeacherOptions(**UNIT))
    exact = expected.spec.preprocess.from_pixels(expected.spec.preprocess.to_pixels(images))
    with serving(tiny_onnx, tmp_path, "--metadata", '{"inputs": [], "outputs": []}') as (url, _):
        teacher = load_http_teacher(url, TeacherOptions(**UNIT, input_shape=(1, 16, 16)))
        torch.testing.assert_close(teacher.scores(images), expected.scores(exact), rtol=1e-4, atol=1e-4)


def test_one_output_is_taken_whatever_it_is_called(tiny_onnx: Path, tmp_path: Path) -> None:
    with serving(tiny_onnx, tmp_path, "--rename", "output-0") as (url, _):
        assert load_http_teacher(url, TeacherOptions(**UNIT)).spec.num_classes == 3


def test_servers_that_take_one_image_at_once_get_one(tiny_onnx: Path, tmp_path: Path) -> None:
    with serving(tiny_onnx, tmp_path, "--one-by-one") as (url, counter):
        assert load_http_teacher(url, TeacherOptions(**UNIT)).scores(torch.rand(5, 1, 16, 16)).shape == (5, 3)
        assert {int(line) for line in counter.read_text().split()} == {1}


def test_tokens_come_from_the_environment_and_are_never_shown(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(tiny_onnx, tmp_path, "--token", "secret-1") as (url, _):
        monkeypatch.setenv("RIGHT", "secret-1")
        monkeypatch.setenv("WRONG", "secret-2")
        teacher = load_http_teacher(url, TeacherOptions(**UNIT, token_variable="RIGHT"))
        assert teacher.scores(torch.rand(2, 1, 16, 16)).shape == (2, 3)
        assert "secret" not in json.dumps(teacher.spec.to_dict())
        with pytest.raises(UsageError) as caught:
            load_http_teacher(url, TeacherOptions(**UNIT, token_variable="WRONG"))
        assert "secret" not in str(caught.value) + str(caught.value.hint)
        with pytest.raises(UsageError, match="is not set"):
            load_http_teacher(url, TeacherOptions(**UNIT, token_variable="NOWHERE"))
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9/predict", "not a model address"),
        ("https://user:pass@host/v2/models/net", "holds credentials"),
        ("http://example.org/v2/models/net", "unencrypted"),
        ("https://example.org:abc/v2/models/net", "not a valid address"),
    ],
)
def test_addresses_are_checked_before_anything_is_sent(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Connection(url, token="t", timeout=1).get(url)


def test_a_server_that_never_answered_is_soon_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedafl.teachers.connection._FIRST_PATIENCE", 0.5)
    connection = Connection(f"http://127.0.0.1:{free_port()}/v2/models/net", token=None, timeout=1)
    began = time.monotonic()
    with pytest.raises(MeasurementError, match="did not answer for") as caught:
        connection.get(connection.url)
    assert time.monotonic() - began < 5
    assert caught.value.exit_code == 4
    assert "address" in caught.value.hint


def test_a_server_killed_and_restarted_in_the_middle(tiny_onnx: Path, tmp_path: Path) -> None:
    port, counter = free_port(), tmp_path / "rows.txt"
    process = start(tiny_onnx, port, counter)
    teacher = load_http_teacher(f"http://127.0.0.1:{port}/v2/models/net", TeacherOptions(**UNIT, max_queries=3000))
    student = build_student("lenet5-half", (1, 16, 16), 3)
    settings = BlackBoxSettings(
        batch=64, channels=8, latent=16, recipe=replace(BlackBoxSettings().recipe, student_steps=2)
    )
    processes = [process]

    def kill_once(progress: object) -> None:
        if len(processes) == 1:
            processes[0].send_signal(signal.SIGKILL)
            processes[0].wait()
            # Back after a while, as a crashed service is.
            code = f"import time, subprocess, sys; time.sleep(1); sys.exit(subprocess.call({[sys.executable, str(SERVER), str(tiny_onnx), str(port), str(counter)]!r}))"
            processes.append(subprocess.Popen([sys.executable, "-c", code], start_new_session=True))

    try:
        outcome = Distiller(
            teacher,
            student,
            BlackBoxSynthesizer(teacher, settings=settings),
            budget=Budget(steps=80),
            on_progress=kill_once,
        ).run()
    finally:
        import os

        for started in processes[1:]:
            os.killpg(started.pid, signal.SIGKILL)
        processes[0].kill()
    assert len(processes) == 2
    assert outcome.steps == 80
    assert outcome.queries == counted(counter) <= 3000
    assert outcome.agreement.generated > 0.5


def test_a_server_that_stays_away_costs_nothing_that_was_learned(tiny_onnx: Path, tmp_path: Path) -> None:
    port, counter, state = free_port(), tmp_path / "rows.txt", tmp_path / "state.pt"
    url, options = f"http://127.0.0.1:{port}/v2/models/net", TeacherOptions(**UNIT, max_queries=3000)
    processes = [start(tiny_onnx, port, counter)]

    def distiller(observe) -> Distiller:
        teacher = load_http_teacher(url, options)
        teacher._connection._patience = 0.5
        torch.manual_seed(0)
        student = build_student("lenet5-half", (1, 16, 16), 3)
        settings = BlackBoxSettings(
            batch=64, channels=8, latent=16, recipe=replace(BlackBoxSettings().recipe, student_steps=2)
        )
        synthesizer = BlackBoxSynthesizer(teacher, settings=settings)
        return Distiller(teacher, student, synthesizer, budget=Budget(steps=80), checkpoint=state, on_progress=observe)

    try:
        with pytest.raises(MeasurementError, match="did not answer") as caught:
            distiller(lambda progress: processes[0].kill()).run()
        assert "--resume" in caught.value.hint
        asked = counted(counter)
        processes.append(start(tiny_onnx, port, counter))
        outcome = distiller(lambda progress: None).run(resume=True)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert 0 < asked < counted(counter)
    assert outcome.steps == 80
    assert outcome.queries == counted(counter) <= 3000


@pytest.mark.slow
@pytest.mark.skipif(not MLSERVER.exists(), reason="MLServer is not installed in .venv-server (see .ci/run)")
def test_mlserver(tmp_path: Path) -> None:
    model = ROOT / "examples" / "mnist" / "teacher.onnx"
    (tmp_path / "served.py").write_text((ROOT / "tests/servers/mlserver/served.py").read_text())
    (tmp_path / "model-settings.json").write_text(
        json.dumps({"name": "mnist", "implementation": "served.Classifier", "parameters": {"uri": str(model)}})
    )
    http, grpc, metrics = free_port(), free_port(), free_port()
    (tmp_path / "settings.json").write_text(
        json.dumps({"http_port": http, "grpc_port": grpc, "metrics_port": metrics, "host": "127.0.0.1",
                    "parallel_workers": 0, "metrics_endpoint": None})
    )  # fmt: skip
    log = (tmp_path / "log.txt").open("wb")
    process = subprocess.Popen([str(MLSERVER), "start", str(tmp_path)], cwd=tmp_path, stdout=log, stderr=log)
    try:
        options = TeacherOptions(mean=(0.1307,), std=(0.3081,), timeout=30)
        teacher = load_http_teacher(f"http://127.0.0.1:{http}/v2/models/mnist", options)
        images = teacher.spec.preprocess.from_pixels(torch.randint(0, 256, (100, 1, 32, 32), dtype=torch.uint8))
        local = load_onnx_teacher(model, TeacherOptions(mean=(0.1307,), std=(0.3081,)))
        torch.testing.assert_close(teacher.scores(images), local.scores(images), rtol=1e-3, atol=1e-3)
        assert teacher.queries == 108
        assert np.isfinite(teacher.scores(images[:3]).numpy()).all()
    finally:
        process.terminate()
        process.wait(20)
