#!/usr/bin/env python3
"""Check and time this bundle's models on this machine, with the runtime that the manifest names.

Needs Python 3.8 or newer with numpy and onnxruntime, or executorch; nothing else. Writes latency.json.

    ./bench                     three processes; together at least 1,024 rounds and 10 seconds
    ./bench --quick             one process, at least 200 rounds and 3 seconds; marked as quick
    ./bench --mlperf            MLPerf's rules for one stream: one model, one process, 600 seconds
    ./bench --layers            time every operator as well, in a run of its own
    ./bench --threads 4         intra-op threads (default 1)
    ./bench --cpus 4-7          pin to these cores, e.g. the big ones

Every process warms up until its times are steady. All precisions run in turn, round by round, in
one process: what disturbs one disturbs all, so their ratios hold on a busy machine. Times are wall
times of one synchronous call at batch 1; loading and pixel conversion are outside. What was
measured so far is in latency.partial.json while a run goes on.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
ROOT = os.environ.get("SYSROOT", "")  # before every path that tells of the machine
LAYER_ROUNDS = 50
LEAST_ROUNDS = 5  # of a network that is measured alone, however slow it is
PASSES = 3
MEMORY_RUNS = 3  # runtimes take their last buffers at the second call
DOT_PRODUCTS = {"asimddp", "avx512_vnni", "avx_vnni"}  # instructions that make eight bits worth it


def read_text(path):
    try:
        with open(path) as stream:
            return stream.read().strip().replace("\x00", "")
    except (OSError, UnicodeDecodeError):
        return ""


def numbered(folder, start):
    path = ROOT + folder
    names = sorted(os.listdir(path)) if os.path.isdir(path) else []
    return [os.path.join(path, name) for name in names if name.startswith(start)]


def number(path):
    text = read_text(path)
    return int(text) if text.lstrip("-").isdigit() else None


def watch():
    """Temperatures (degrees Celsius), clocks (kHz) and power (mW) at this moment, where they can be read."""
    heat, clocks, power = {}, {}, {}
    for zone in numbered("/sys/class/thermal", "thermal_zone"):
        value = number(os.path.join(zone, "temp"))
        if value is not None:
            heat[read_text(os.path.join(zone, "type")) or os.path.basename(zone)] = value / 1000
    for policy in numbered("/sys/devices/system/cpu/cpufreq", "policy"):
        value = number(os.path.join(policy, "scaling_cur_freq"))
        if value is not None:
            clocks[os.path.basename(policy)] = value
    for monitor in numbered("/sys/class/hwmon", "hwmon"):
        if read_text(os.path.join(monitor, "name")) != "ina3221":
            continue
        for rail in range(1, 9):
            label = read_text(os.path.join(monitor, "in%d_label" % rail))
            volts, amperes = (number(os.path.join(monitor, "%s%d_input" % (k, rail))) for k in ("in", "curr"))
            if label and volts is not None and amperes is not None:
                power[label] = volts * amperes // 1000
    return {"temperatures": heat, "clocks_khz": clocks, "power_mw": power}


def cpu_times():
    """(busy, steal, total) jiffies of the whole machine, or None where /proc/stat is missing."""
    first = read_text(ROOT + "/proc/stat").split("\n")[0].split()[1:]
    if len(first) < 8:
        return None
    values = [int(v) for v in first[:8]]
    return sum(values) - values[3] - values[4], values[7], sum(values)


def device_facts():
    """What facts.sh says of this machine; nothing where there is no shell."""
    script = os.path.join(FOLDER, "facts.sh")
    try:
        said = subprocess.run(["sh", script, "true"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = said.stdout.decode("utf-8", "replace").splitlines()
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def environment(facts):
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    features = set(facts.get("cpu_features", "").split())
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpu": facts.get("cpu") or facts.get("cpu_parts") or platform.processor(),
        "cores": os.cpu_count(),
        "dot_products": bool(features & DOT_PRODUCTS) if features else None,
        "affinity": affinity,
        "governor": read_text(ROOT + "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        "board": facts.get("board", ""),
        "power_mode": facts.get("power_mode", ""),
        "provider": "CPU",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "facts": {k: v for k, v in facts.items() if k not in ("cpu_features", "jetson_clocks")},
    }


def check_files(manifest):
    for name, digest in manifest["files"].items():
        with open(os.path.join(FOLDER, name), "rb") as stream:
            if hashlib.sha256(stream.read()).hexdigest() != digest:
                sys.exit("bench: %s was changed after the bundle was made" % name)


def adds_exactly():
    """Whether this processor has VNNI. x86 without it adds up products of eight bits in 16 bits, which overflow, unless
    it is told not to; with it, being told takes twice the time."""
    lines = read_text("/proc/cpuinfo").splitlines()
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return bool(flags & DOT_PRODUCTS)


def open_session(variant, threads, profile=None):
    # Nothing is left in the user's home and nothing is sent; read when ONNX Runtime is loaded.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("ORT_TELEMETRY_DISABLED", "1")
    import onnxruntime as ort

    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not adds_exactly():
        options.add_session_config_entry("session.x64quantprecision", "1")
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    return ort.InferenceSession(os.path.join(FOLDER, variant["file"]), options, providers=["CPUExecutionProvider"])


def open_onnxruntime(variant, manifest, threads):
    session, name = open_session(variant, threads), manifest["input"]["name"]
    return lambda image: session.run(None, {name: image})[0]


def open_executorch(variant, manifest, threads):
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(os.path.join(FOLDER, variant["file"])).load_method("forward")
    return lambda image: method.execute([torch.from_numpy(image)])[0].numpy()


def litert_interpreter():
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter  # Raspberry Pi OS and Termux package this one
    return Interpreter


def open_litert(variant, manifest, threads):
    import numpy

    runner = litert_interpreter()(os.path.join(FOLDER, variant["file"]), num_threads=threads)
    runner.allocate_tensors()
    given, made = runner.get_input_details()[0], runner.get_output_details()[0]

    def run(image):
        if manifest.get("pixels"):  # the file takes them as they are
            low, step = (numpy.reshape(manifest["preprocess"][k], (1, -1, 1, 1)) for k in ("offset", "scale"))
            image = ((image - low) / step).astype(numpy.float32)
        value = numpy.ascontiguousarray(image.transpose(0, 2, 3, 1))
        if given["dtype"] != numpy.float32:
            scale, zero = given["quantization"]
            limits = numpy.iinfo(given["dtype"])
            value = numpy.clip(numpy.round(value / scale) + zero, limits.min, limits.max).astype(given["dtype"])
        runner.set_tensor(given["index"], value)
        runner.invoke()
        scores = runner.get_tensor(made["index"])
        scale, zero = made["quantization"]
        return (scores.astype(numpy.float32) - zero) * numpy.float32(scale) if scale else scores

    return run


def open_openvino(variant, manifest, threads):
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(os.path.join(FOLDER, variant["file"]), "CPU", settings)
    return lambda image: model(image)[0]


OPENERS = {
    "onnxruntime": open_onnxruntime,
    "executorch": open_executorch,
    "litert": open_litert,
    "openvino": open_openvino,
}
PACKAGES = {
    "onnxruntime": "onnxruntime",
    "executorch": "executorch",
    "litert": "ai-edge-litert",
    "openvino": "openvino",
}
MODULES = {
    "onnxruntime": ("onnxruntime",),
    "executorch": ("executorch",),
    "litert": ("ai_edge_litert", "tflite_runtime"),
    "openvino": ("openvino",),
}


def version_of(runtime):
    import importlib.metadata

    for module in MODULES[runtime]:
        try:
            return "%s %s" % (runtime, importlib.metadata.version(module.replace("_", "-")))
        except importlib.metadata.PackageNotFoundError:
            continue
    return runtime


def check_outputs(np, models, manifest, examples):
    """Compare with what the build machine answered; the limit is relative to the largest score."""
    results = {}
    for variant in manifest["variants"]:
        precision = variant["precision"]
        if precision not in models:
            continue
        expected = examples[precision]
        found = np.stack([models[precision](x[None])[0] for x in examples["image"]])
        error = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30))
        single = found.shape[1] == 1
        classes = [(s > 0 if single else s.argmax(1)) for s in (found, expected)]
        same = float((classes[0] == classes[1]).mean())
        passed = bool(np.isfinite(found).all()) and error <= variant["tolerance"]
        results[precision] = {"relative_error": error, "same_class": same, "passed": passed}
    return results


def warm_up(calls, seconds):
    """Until two window medians agree within 2 %, at least `seconds`, at most five times that."""
    start = time.perf_counter()
    previous = None
    while True:
        window = []
        until = time.perf_counter() + seconds / 4
        while time.perf_counter() < until or not window:
            before = time.perf_counter_ns()
            for call in calls.values():
                call()
            window.append(time.perf_counter_ns() - before)
        median = statistics.median(window)
        spent = time.perf_counter() - start
        stable = previous is not None and abs(median - previous) <= 0.02 * previous
        if (stable and spent >= seconds) or spent >= 5 * seconds:
            return spent
        previous = median


def measure(calls, count, seconds):
    """Rounds over all models; between rounds, once a second, a look at the machine."""
    samples = {name: [] for name in calls}
    seen = []
    start = looked = time.perf_counter()
    clock = time.perf_counter_ns
    rounds = 0
    while rounds < count or time.perf_counter() - start < seconds:
        for name, call in calls.items():
            before = clock()
            call()
            samples[name].append(clock() - before)
        rounds += 1
        if time.perf_counter() - looked >= 1:
            looked = time.perf_counter()
            seen.append(dict(watch(), seconds=round(looked - start, 3)))
    return samples, time.perf_counter() - start, seen


def measure_alone(calls, seconds):
    """One model after the other, each warm and by itself, all of them several times over.

    For many small networks: what disturbs the machine for a while disturbs one pass only.
    """
    samples = {name: [] for name in calls}
    lengths = {name: [] for name in calls}
    seen, start = [], time.perf_counter()
    for _ in range(PASSES):
        for name, call in calls.items():
            warm_up({name: call}, seconds / PASSES / 2)
            taken = measure({name: call}, LEAST_ROUNDS, seconds / PASSES)[0][name]
            samples[name] += taken
            lengths[name].append(len(taken))
        seen.append(dict(watch(), seconds=round(time.perf_counter() - start, 3)))
    return samples, lengths, time.perf_counter() - start, seen


def work(args, manifest):
    """One process's share: open, check, warm up, measure."""
    import numpy as np

    variants = [v for v in manifest["variants"] if not args.mlperf or v["precision"] == manifest["precision"]]
    models = {v["precision"]: OPENERS[manifest["runtime"]](v, manifest, args.threads) for v in variants}
    with np.load(os.path.join(FOLDER, "expected_io.npz")) as data:
        examples = {name: data[name] for name in data.files}
    checks = check_outputs(np, models, manifest, examples)
    image = examples["image"][:1].copy()
    calls = {name: (lambda model=model: model(image)) for name, model in models.items()}
    warm = 0.0 if args.blocks else warm_up(calls, args.warm_up)
    before, own = cpu_times(), time.process_time()
    if args.blocks:
        samples, lengths, spent, seen = measure_alone(calls, args.blocks)
    else:
        samples, spent, seen = measure(calls, args.count, args.seconds)
        lengths = {name: [len(values)] for name, values in samples.items()}
    result = {
        "runtime": version_of(manifest["runtime"]),
        "checks": checks,
        "samples_ns": samples,
        "lengths": lengths,
        "warm_up_seconds": warm,
        "seconds": spent,
        "watch": seen,
    }
    after, own = cpu_times(), time.process_time() - own
    if before and after:
        other = (after[0] - before[0]) / os.sysconf("SC_CLK_TCK") - own
        result["other_load"] = max(0.0, other / spent)
        result["steal_share"] = (after[1] - before[1]) / max(after[2] - before[2], 1)
    return result


def work_apart(args, manifest):
    """The same in a process of its own, with memory and code at other places; None where that cannot be started."""
    with tempfile.TemporaryDirectory(prefix="edgedafl-bench-") as place:
        result = os.path.join(place, "worker.json")
        command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--worker", result]
        try:
            code = subprocess.call(command)
        except OSError:
            return None
        if not os.path.exists(result):
            if code in (126, 127):
                return None
            sys.exit(code or 1)
        with open(result) as stream:
            return json.load(stream)


def peak_memory():
    """The most bytes that this process has had in memory; None where the system does not tell."""
    rows = [line.split() for line in read_text("/proc/self/status").splitlines() if line.startswith("VmHWM:")]
    return int(rows[0][1]) * 1024 if rows else None


def grow(precision, args, manifest):
    """By how many bytes opening and running one model alone lets this process grow."""
    import numpy as np

    variant = next(v for v in manifest["variants"] if v["precision"] == precision)
    with np.load(os.path.join(FOLDER, "expected_io.npz")) as data:
        image = data["image"][:1].copy()
    for name in MODULES[manifest["runtime"]]:  # its libraries are not the model's
        if importlib.util.find_spec(name):
            __import__(name)
            break
    before = peak_memory()
    model = OPENERS[manifest["runtime"]](variant, manifest, args.threads)
    for _ in range(MEMORY_RUNS):
        model(image)
    after = peak_memory()
    return None if before is None or after is None else after - before


def memory_of(args, manifest):
    """Growth by precision, each in a process of its own; what cannot be told is left out."""
    found = {}
    for variant in manifest["variants"]:
        command = [sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--memory", variant["precision"]]
        try:
            grown = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.strip()
        except OSError:
            return {}
        if grown.isdigit():
            found[variant["precision"]] = int(grown)
    return found


def time_layers(args, manifest):
    """Median nanoseconds of every operator, as ONNX Runtime's profiler sees the fused graph."""
    import numpy as np

    with np.load(os.path.join(FOLDER, "expected_io.npz")) as data:
        feed = {manifest["input"]["name"]: data["image"][:1].copy()}
    layers = {}
    place = tempfile.mkdtemp(prefix="edgedafl-layers-")
    try:
        for variant in manifest["variants"]:
            session = open_session(variant, args.threads, os.path.join(place, "profile"))
            for _ in range(2 * LAYER_ROUNDS):
                session.run(None, feed)
            with open(session.end_profiling()) as stream:
                events = [e for e in json.load(stream) if e.get("name", "").endswith("_kernel_time")]
            times = {}
            for event in events[len(events) // 2 :]:
                node = event["name"][: -len("_kernel_time")]
                times.setdefault((node, event["args"]["op_name"]), []).append(event["dur"] * 1000)
            rows = [{"node": n, "operator": o, "ns": statistics.median(v)} for (n, o), v in times.items()]
            layers[variant["precision"]] = rows
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return layers


def merge(parts, facts, args, manifest):
    samples, lengths = {}, {}
    for part in parts:
        for name, values in part["samples_ns"].items():
            samples.setdefault(name, []).extend(values)
            lengths.setdefault(name, []).extend(part["lengths"][name])
    loads = [(p.get("other_load"), p.get("steal_share")) for p in parts if "other_load" in p]
    if loads:
        facts["other_load"] = max(load for load, _ in loads)
        facts["steal_share"] = max(steal for _, steal in loads)
    seen = [look for part in parts for look in part["watch"]]
    return {
        "schema": 1,
        "kind": "emulated" if "emulated" in facts.get("facts", {}) else "measured",
        "target": manifest["target"],
        "student": manifest["student"],
        "quick": args.quick,
        "mlperf": args.mlperf,
        "batch": 1,
        "timed": "one synchronous call, host to host; loading and pixel conversion excluded",
        "warm_up_seconds": sum(p["warm_up_seconds"] for p in parts),
        "seconds": sum(p["seconds"] for p in parts),
        "environment": dict(facts, runtime=parts[0]["runtime"], threads=args.threads),
        "watch": seen,
        "checks": {
            name: min((p["checks"][name] for p in parts), key=lambda check: check["passed"])
            for name in parts[0]["checks"]
        },
        "processes": len(parts),
        "process_samples": lengths,
        "samples_ns": samples,
        "files": {v["precision"]: manifest["files"][v["file"]] for v in manifest["variants"]},
    }


def write(path, result):
    with open(path + ".tmp", "w") as stream:
        json.dump(result, stream)
    os.replace(path + ".tmp", path)


def arguments():
    parser = argparse.ArgumentParser(description="Check and time this bundle on this machine.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpus", help="cores to run on, e.g. 4-7 or 0,2")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--mlperf", action="store_true")
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--blocks", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--output", default="latency.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    args = parser.parse_args()
    count, seconds, args.warm_up = (1024, 10.0, 2.0) if not args.quick else (200, 3.0, 0.5)
    if args.mlperf:
        seconds = 600.0
    if args.quick or args.mlperf or args.blocks or args.processes < 1:
        args.processes = 1
    args.count, args.seconds = -(-count // args.processes), seconds / args.processes
    if args.cpus and hasattr(os, "sched_setaffinity"):
        spans = [part.split("-") for part in args.cpus.split(",")]
        try:
            os.sched_setaffinity(0, {c for span in spans for c in range(int(span[0]), int(span[-1]) + 1)})
        except (ValueError, OSError) as error:
            sys.exit("bench: cores %s cannot be used: %s" % (args.cpus, error))
    return args


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with open(os.path.join(FOLDER, "manifest.json")) as stream:
        manifest = json.load(stream)
    runtime = manifest["runtime"]
    missing = [] if importlib.util.find_spec("numpy") else ["numpy"]
    if not any(importlib.util.find_spec(name) for name in MODULES[runtime]):
        missing.append(PACKAGES[runtime])
    if missing:
        sys.exit(
            "bench: %s missing; install: python3 -m pip install numpy %s" % (" and ".join(missing), PACKAGES[runtime])
        )
    if args.layers and runtime != "onnxruntime":
        sys.exit("bench: operators can be timed with ONNX Runtime only")
    if args.worker:
        write(args.worker, work(args, manifest))
        return
    if args.memory:
        print(grow(args.memory, args, manifest))
        return
    check_files(manifest)
    facts = environment(device_facts())
    facts["before"] = watch()
    parts = []
    for index in range(args.processes):
        part = work_apart(args, manifest) if args.processes > 1 else None
        if part is None:  # one process, or a place where no other can be started
            args.count, args.seconds = args.count * args.processes, args.seconds * args.processes
            args.processes = 1
            part = work(args, manifest)
        parts.append(part)
        if len(parts) >= args.processes:
            break
        write(
            os.path.join(os.path.dirname(args.output) or ".", "latency.partial.json"),
            merge(parts, facts, args, manifest),
        )
        print("process %d of %d done" % (index + 1, args.processes), flush=True)
    facts["after"] = watch()
    result = merge(parts, facts, args, manifest)
    if not args.blocks:  # a calibration's many networks are asked for their time alone
        result["memory_bytes"] = memory_of(args, manifest)
    if args.layers:
        result["layers"] = time_layers(args, manifest)
    write(args.output, result)
    for name, values in result["samples_ns"].items():
        verdict = "ok" if result["checks"][name]["passed"] else "OUTPUTS DIFFER"
        print("%-5s median %.3f ms  n=%d  %s" % (name, statistics.median(values) / 1e6, len(values), verdict))
    sys.exit(0 if all(check["passed"] for check in result["checks"].values()) else 1)


if __name__ == "__main__":
    main()
