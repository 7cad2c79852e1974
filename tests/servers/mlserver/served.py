"""An ONNX classifier as an MLServer runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor


class Classifier(MLModel):
    async def load(self) -> bool:
        self.session = ort.InferenceSession(self.settings.parameters.uri, providers=["CPUExecutionProvider"])
        image, scores = self.session.get_inputs()[0], self.session.get_outputs()[0]
        self.inputs = [MetadataTensor(name=image.name, datatype="FP32", shape=[-1, *image.shape[1:]])]
        self.outputs = [MetadataTensor(name=scores.name, datatype="FP32", shape=[-1, *scores.shape[1:]])]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        images = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        name = self.outputs[0].name
        scores = self.session.run([name], {self.inputs[0].name: images})[0]
        outputs = [NumpyCodec.encode_output(name, scores)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
