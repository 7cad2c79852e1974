"""Measure small networks on a device and fit its own latency model."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgedafl.callbacks import OnMessage, silent
from edgedafl.devices import DeviceFacts, find_device, get_device_entry, read_facts, run_bundle
from edgedafl.errors import UsageError
from edgedafl.export import Artifacts, find_exporter
from edgedafl.graph.calibration_networks import CalibrationNetwork, calibration_networks
from edgedafl.graph.cost import layer_costs
from edgedafl.graph.image_input import find_image_input
from edgedafl.latency import DeviceModel, Measured, fit_model, read_measurement
from edgedafl.quantize import observe_activations, quantize_graph
from edgedafl.stages.profile import host_target
from edgedafl.targets import Target, find_target

__all__ = ["calibrate_device"]

# Per network and precision: the whole takes well below three minutes on a board.
_SECONDS = 0.32
_TIMEOUT = 900.0
_FINGERPRINT = ("machine", "board", "cpu", "cpu_parts", "release", "power_mode", "onnxruntime")


def calibrate_device(
    name: str, *, target: str | None = None, threads: int = 1, on_message: OnMessage = silent
) -> DeviceModel:
    """Fit a device's own latency model for the precisions of a target.

    Args:
        name: The device, by name or address.
        target: Whose runtime and scheme; what was said of the device, else this host's.
        threads: Intra-op threads.
        on_message: Called with what happens.

    Raises:
        UsageError: If the target does not run ONNX Runtime.
        MeasurementError: If the device or the measurement fails.

    Examples:
        >>> from edgedafl.stages.calibrations import keep_calibration
        >>> keep_calibration(calibrate_device("pi-in-the-lab"))  # doctest: +SKIP
    """
    wanted = target or get_device_entry(name).target
    chosen = find_target(wanted) if wanted else host_target()
    if chosen.runtime != "onnxruntime":
        raise UsageError(
            f"{chosen.title} cannot be calibrated: building hundreds of engines takes hours.",
            "Measure the student itself: edgedafl profile RUN --device NAME.",
        )
    networks = calibration_networks()
    seconds: dict[str, dict[str, float]] = defaultdict(dict)
    invalid: list[str] = []
    with closing(find_device(name)) as device:
        facts = read_facts(device)
        for shape in sorted({network.input_shape for network in networks}):
            group = [network for network in networks if network.input_shape == shape]
            on_message(f"{len(group)} networks of {shape}")
            with tempfile.TemporaryDirectory(prefix="edgedafl-calibrate-") as folder:
                bundle = find_exporter("onnx").export(_artifacts(group, chosen), chosen, Path(folder) / "bundle")
                result = Path(folder) / "latency.json"
                flags = ["--threads", str(threads), "--blocks", str(_SECONDS)]
                run_bundle(device, bundle.directory, flags, result, timeout=_TIMEOUT, on_message=on_message)
                measured = read_measurement(result, name)
            invalid += [text for text in measured.invalid if text not in invalid]
            for variant, nanoseconds in measured.steadiest.items():
                network, precision = variant.rsplit(".", 1)
                seconds[precision][network] = nanoseconds / 1e9
    fits = {precision: fit_model(_measured(networks, found)) for precision, found in seconds.items()}
    return DeviceModel(name, chosen.name, threads, fits, _fingerprint(facts), tuple(invalid))


def _artifacts(group: list[CalibrationNetwork], target: Target) -> Artifacts:
    random = np.random.default_rng(0)
    images = random.normal(size=(8, *group[0].input_shape)).astype(np.float32)
    models = {}
    for network in group:
        models[f"{network.name}.fp32"] = network.model
        models[f"{network.name}.int8"] = quantize_graph(
            network.model,
            replace(target.scheme, remainder="float32"),
            observe_activations(network.model, images),
            "min-max",
        )
    unit = {"scale": [1.0] * images.shape[1], "offset": [0.0] * images.shape[1]}
    return Artifacts(models, next(iter(models)), "micro-networks", unit, images[:1])


def _measured(networks: list[CalibrationNetwork], seconds: dict[str, float]) -> list[Measured]:
    rows = []
    for network in networks:
        layers = layer_costs(network.model, find_image_input(network.model))
        rows.append(Measured(network.name, layers, seconds[network.name]))
    return rows


def _fingerprint(facts: DeviceFacts) -> dict[str, str]:
    return {name: facts[name] for name in _FINGERPRINT if facts[name]}
