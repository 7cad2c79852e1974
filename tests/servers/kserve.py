"""A small server of the Open Inference Protocol that can also misbehave.

    python tests/servers/kserve.py MODEL PORT COUNTER [--token T] [--fail-every N] [--binary] ...

It appends the number of rows of every answered request to the file COUNTER, which outlives it.
Standard library, numpy and ONNX Runtime only.
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnxruntime as ort


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    arguments: argparse.Namespace
    session: ort.InferenceSession
    requests = 0

    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, status: int, body: object, *, blob: bytes = b"", headers: dict[str, str] | None = None) -> None:
        head = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if blob:
            self.send_header("Inference-Header-Content-Length", str(len(head)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(head) + len(blob)))
        self.end_headers()
        self.wfile.write(head + blob)

    def allowed(self) -> bool:
        token = self.arguments.token
        return not token or self.headers.get("Authorization") == f"Bearer {token}"

    def do_GET(self) -> None:
        if not self.allowed():
            return self.reply(401, {"error": "no"})
        if self.arguments.other_protocol:
            return self.reply(200, b"<html>hello</html>")
        if self.path == "/v2":
            extensions = ["binary_tensor_data"] if self.arguments.binary else []
            return self.reply(200, {"name": "test", "version": "1", "extensions": extensions})
        if self.path == "/v2/models/net" and self.arguments.metadata:
            return self.reply(200, self.arguments.metadata.encode())
        if self.path == "/v2/models/net":
            image, scores = self.session.get_inputs()[0], self.session.get_outputs()[0]
            shape = [-1, *image.shape[1:]]
            inputs = [{"name": image.name, "datatype": "FP32", "shape": shape}] * self.arguments.inputs
            kind = "INT64" if self.arguments.labels else "FP32"
            return self.reply(
                200,
                {
                    "name": "net",
                    "inputs": inputs,
                    "outputs": [{"name": scores.name, "datatype": kind, "shape": [-1, 10]}],
                },
            )
        return self.reply(404, {"error": "unknown"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Handler.requests += 1
        a = self.arguments
        if not self.allowed():
            return self.reply(403, {"error": "no"})
        if a.answer:
            return self.reply(200, a.answer.encode())
        if a.status:
            return self.reply(a.status, a.words.encode())
        if a.fail_every and Handler.requests % a.fail_every == 0:
            return self.reply(429 if Handler.requests % 2 else 503, {"error": "busy"}, headers={"Retry-After": "0.1"})
        length = self.headers.get("Inference-Header-Content-Length")
        head = json.loads(body[: int(length)] if length else body)
        tensor = head["inputs"][0]
        blob = body[int(length or 0) :]
        data = np.frombuffer(blob, np.float32) if length else np.asarray(tensor["data"], np.float32)
        images = data.reshape(tensor["shape"])
        if a.largest and len(images) > a.largest:
            return self.reply(400, {"error": f"batch size {len(images)} exceeds {a.largest}"})
        if a.one_by_one and len(images) > 1:
            return self.reply(400, {"error": f"unexpected shape for input, got {tensor['shape']}"})
        name = self.session.get_outputs()[0].name
        scores = self.session.run([name], {self.session.get_inputs()[0].name: images})[0]
        if a.noise:
            scores = scores + np.random.default_rng().normal(size=scores.shape).astype(np.float32)
        if a.nan:
            scores = scores * np.float32("nan")
        if a.labels:
            scores = scores.argmax(1).astype(np.int64)
        with Path(a.counter).open("a") as stream:
            stream.write(f"{len(images)}\n")
        entry = {"name": a.rename or name, "datatype": "INT64" if a.labels else "FP32", "shape": list(scores.shape)}
        if length:
            entry["parameters"] = {"binary_data_size": scores.nbytes}
            return self.reply(200, {"outputs": [entry]}, blob=scores.tobytes())
        entry["data"] = json.loads(json.dumps(scores.reshape(-1).tolist()))
        return self.reply(200, {"outputs": [entry]})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("port", type=int)
    parser.add_argument("counter")
    parser.add_argument("--token")
    parser.add_argument("--fail-every", type=int, default=0)
    parser.add_argument("--largest", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=1)
    parser.add_argument("--metadata", help="what is said of the model instead of the truth")
    parser.add_argument("--answer", help="what is answered to all images")
    parser.add_argument("--status", type=int, default=0, help="what all images are answered with")
    parser.add_argument("--words", default="", help="the body beside it")
    parser.add_argument("--rename", help="another name of the output than the declared one")
    for flag in ("--one-by-one", "--binary", "--noise", "--nan", "--labels", "--other-protocol"):
        parser.add_argument(flag, action="store_true")
    Handler.arguments = parser.parse_args()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    Handler.session = ort.InferenceSession(Handler.arguments.model, options, providers=["CPUExecutionProvider"])
    ThreadingHTTPServer(("127.0.0.1", Handler.arguments.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
