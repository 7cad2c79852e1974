#!/usr/bin/env python3
"""Check and time this bundle's models with ONNX Runtime on this machine.

Needs Python 3.8 or newer with numpy and onnxruntime; nothing else. Writes latency.json.

    ./bench                     warm up, then at least 1,024 rounds and 10 seconds
    ./bench --quick             at least 200 rounds and 3 seconds; marked as quick
    ./bench --threads 4         intra-op threads (default 1)

All precisions run in turn, round by round, in one process: what disturbs one disturbs all, so
their ratios hold on a busy machine. Times are wall times of one synchronous call at batch 1;
loading and pixel conversion are outside.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import sys
import time


def read_text(path):
    try:
        with open(path) as stream:
            return stream.read().strip()
    except OSError:
        return ""


def cpu_times():
    """(busy, steal, total) jiffies of the whole machine, or None where /proc/stat is missing."""
    first = read_text("/proc/stat").split("\n")[0].split()[1:]
    if len(first) < 8:
        return None
    values = [int(v) for v in first[:8]]
    return sum(values) - values[3] - values[4], values[7], sum(values)


def temperatures():
    found = {}
    root = "/sys/class/thermal"
    for zone in sorted(os.listdir(root)) if os.path.isdir(root) else []:
        value = read_text(os.path.join(root, zone, "temp"))
        if value.lstrip("-").isdigit():
            found[read_text(os.path.join(root, zone, "type")) or zone] = int(value) / 1000
    return found


def environment(runtime, threads):
    cpu = ""
    for line in read_text("/proc/cpuinfo").split("\n"):
        if line.lower().startswith(("model name", "hardware", "cpu part")):
            cpu = line.split(":", 1)[1].strip()
            break
    governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cpu": cpu or platform.processor(),
        "cores": os.cpu_count(),
        "affinity": affinity,
        "governor": read_text(governor) or "unknown",
        "board": read_text("/proc/device-tree/model").replace("\x00", ""),
        "runtime": "onnxruntime " + runtime,
        "provider": "CPUExecutionProvider",
        "threads": threads,
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "temperatures_before": temperatures(),
    }


def check_files(folder, manifest):
    for name, digest in manifest["files"].items():
        with open(os.path.join(folder, name), "rb") as stream:
            if hashlib.sha256(stream.read()).hexdigest() != digest:
                sys.exit("bench: %s was changed after the bundle was made" % name)


def open_models(ort, folder, manifest, threads):
    models = {}
    for variant in manifest["variants"]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path = os.path.join(folder, variant["file"])
        models[variant["precision"]] = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return models


def check_outputs(np, models, manifest, examples):
    """Compare with what the build machine answered; the limit is relative to the largest score."""
    results = {}
    for variant in manifest["variants"]:
        precision = variant["precision"]
        expected = examples[precision]
        name = manifest["input"]["name"]
        rows = [models[precision].run(None, {name: x[None]})[0][0] for x in examples["image"]]
        found = np.stack(rows)
        error = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30))
        single = found.shape[1] == 1
        classes = [(s > 0 if single else s.argmax(1)) for s in (found, expected)]
        same = float((classes[0] == classes[1]).mean())
        passed = error <= variant["tolerance"]
        results[precision] = {"relative_error": error, "same_class": same, "passed": passed}
    return results


def warm_up(calls, seconds):
    """Until two window medians agree within 2 %, at least `seconds`, at most five times that."""
    start = time.perf_counter()
    previous = None
    while True:
        window = []
        until = time.perf_counter() + seconds / 4
        while time.perf_counter() < until:
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
    samples = {name: [] for name in calls}
    start = time.perf_counter()
    clock = time.perf_counter_ns
    rounds = 0
    while rounds < count or time.perf_counter() - start < seconds:
        for name, call in calls.items():
            before = clock()
            call()
            samples[name].append(clock() - before)
        rounds += 1
    return samples, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description="Check and time this bundle on this machine.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", default="latency.json")
    args = parser.parse_args()
    try:
        import numpy as np
        import onnxruntime as ort
    except ImportError as error:
        sys.exit("bench: %s; install it with: python3 -m pip install numpy onnxruntime" % error)
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "manifest.json")) as stream:
        manifest = json.load(stream)
    check_files(folder, manifest)
    facts = environment(ort.__version__, args.threads)
    models = open_models(ort, folder, manifest, args.threads)
    with np.load(os.path.join(folder, "expected_io.npz")) as data:
        examples = {name: data[name] for name in data.files}
    checks = check_outputs(np, models, manifest, examples)
    feed = {manifest["input"]["name"]: examples["image"][:1].copy()}
    calls = {name: (lambda s=session: s.run(None, feed)) for name, session in models.items()}
    warm = warm_up(calls, 0.5 if args.quick else 2.0)
    busy_before, own_before = cpu_times(), time.process_time()
    count, seconds = (200, 3.0) if args.quick else (1024, 10.0)
    samples, spent = measure(calls, count, seconds)
    busy_after, own = cpu_times(), time.process_time() - own_before
    if busy_before and busy_after:
        hertz = os.sysconf("SC_CLK_TCK")
        total = max(busy_after[2] - busy_before[2], 1)
        other = (busy_after[0] - busy_before[0]) / hertz - own
        facts["other_load"] = max(0.0, other / spent)
        facts["steal_share"] = (busy_after[1] - busy_before[1]) / total
    facts["temperatures_after"] = temperatures()
    result = {
        "schema": 1,
        "kind": "measured",
        "target": manifest["target"],
        "student": manifest["student"],
        "quick": args.quick,
        "batch": 1,
        "timed": "one synchronous call, host to host; loading and pixel conversion excluded",
        "warm_up_seconds": warm,
        "seconds": spent,
        "environment": facts,
        "checks": checks,
        "samples_ns": samples,
        "files": {v["precision"]: manifest["files"][v["file"]] for v in manifest["variants"]},
    }
    temporary = args.output + ".tmp"
    with open(temporary, "w") as stream:
        json.dump(result, stream)
    os.replace(temporary, args.output)
    for name, values in samples.items():
        verdict = "ok" if checks[name]["passed"] else "OUTPUTS DIFFER"
        print("%-5s median %.3f ms  n=%d  %s" % (name, statistics.median(values) / 1e6, len(values), verdict))
    sys.exit(0 if all(check["passed"] for check in checks.values()) else 1)


if __name__ == "__main__":
    main()
