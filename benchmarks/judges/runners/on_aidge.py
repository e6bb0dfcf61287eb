"""Aidge: trains a residual network with its SAT, as it is told line by line.

    python on_aidge.py NETWORK.npz

NETWORK.npz: kernels (output, input, height, width) and `logits_w`, `logits_b`, by the names that `residual_network`
gives. Every line of the standard input is a JSON object, `do` a function of `COMMANDS` and its arguments; every answer
is a line that begins with ANSWER. Images are float32 (n, channels, height, width), 0 .. 1.
"""

import json
import sys
import tempfile
import time

import aidge_backend_cpu  # noqa: F401  registers the kernels
import aidge_core
import aidge_export_cpp  # noqa: F401  registers the export
import aidge_learning
import aidge_onnx
import aidge_quantization
import numpy as np
from aidge_core.export_utils import export
from aidge_core.export_utils.config import ExportConfig

BACKEND = "cpu"
MOMENTUM = 0.9


def tensor(values):
    """An array as Aidge wants it."""
    made = aidge_core.Tensor(np.ascontiguousarray(values))
    made.set_backend(BACKEND)
    return made


def convolution(x, kernel, name, stride, relu=True):
    """A convolution that pads as Keras's "same": with stride 2 below and on the right."""
    outputs, inputs, size, _ = kernel.shape
    options = {"name": name, "stride_dims": [stride, stride], "no_bias": True}
    if size > 1:
        options["padding_dims"] = [1, 1, 1, 1] if stride == 1 else [0, 0, 1, 1]
    made = (aidge_core.PaddedConv2D if size > 1 else aidge_core.Conv2D)(inputs, outputs, [size, size], **options)
    x = made(x)
    return aidge_core.ReLU(name=f"{name}_relu")(x) if relu else x


def residual_network(arrays):
    """A stem of stride 2 and three residual blocks without batch norm, whose backward the CPU does not have."""
    y = convolution(aidge_core.Connector(), arrays["stem_w"], "stem", 2)
    for block in (1, 2, 3):
        name, stride = f"block{block}", 1 if block == 1 else 2
        branch = convolution(y, arrays[f"{name}_conv1_w"], f"{name}_conv1", stride)
        branch = convolution(branch, arrays[f"{name}_conv2_w"], f"{name}_conv2", 1, relu=False)
        if stride > 1:
            y = convolution(y, arrays[f"{name}_shortcut_w"], f"{name}_shortcut", stride, relu=False)
        y = aidge_core.ReLU(name=f"{name}_relu")(aidge_core.Add(name=f"{name}_add")(y, branch))
    outputs, inputs = arrays["logits_w"].shape
    y = aidge_core.FC(inputs, outputs, name="logits")(aidge_core.Flatten(name="flat")(y))
    graph = aidge_core.generate_graph([y])
    graph.set_backend(BACKEND)
    for producer in aidge_core.producers(graph):
        producer.get_operator().set_output(0, tensor(arrays[producer.name()]))
    return graph


class Peer:
    """The network in training: what each command changes."""

    def __init__(self, path):
        with np.load(path) as arrays:
            self.graph = residual_network(dict(arrays))
        self.scheduler = self.optimizer = None

    def clamp(self):
        """SAT's first stage, as its documentation has it: weights clamped, scaled where no batch norm follows."""
        aidge_quantization.sat.insert_sat_nodes(self.graph, True)

    def quantize(self, bits, mode="Default"):
        """The second: DoReFa's weights, CG-PACT's activations from the documented first clip value."""
        modes = aidge_quantization.DoReFaMode
        aidge_quantization.sat.insert_param_quantizers(self.graph, bits, getattr(modes, mode))
        aidge_quantization.sat.insert_activ_quantizers(self.graph, bits)

    def start(self, learning_rate, steps):
        """A stage's optimizer, with the learning rate along a cosine."""
        self.graph.set_backend(BACKEND)
        self.scheduler = aidge_core.SequentialScheduler(self.graph)
        self.optimizer = aidge_learning.SGD(momentum=MOMENTUM)
        self.optimizer.set_parameters(list(aidge_core.producers(self.graph)))
        self.optimizer.set_learning_rate_scheduler(aidge_learning.cosine_lr(learning_rate, steps))

    def train(self, path):
        """One step for each batch of the file; of each the loss, the seconds, and the processor's seconds."""
        with np.load(path) as arrays:
            batches = list(zip(arrays["images"], arrays["labels"], strict=True))
        losses, seconds, processor = [], [], []
        for images, labels in batches:
            start, begun = time.perf_counter(), time.process_time()
            answers = self.scheduler.forward(data=[tensor(images)])[0]  # the others are its quantizers' scales
            self.optimizer.reset_grad()
            one_hot = np.eye(answers.dims[1], dtype=np.float32)[labels]
            loss = aidge_learning.loss.CELoss(answers, tensor(one_hot))
            self.scheduler.backward()
            self.optimizer.update()
            losses.append(float(np.array(loss).ravel()[0]))
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - begun)
        return {"loss": losses, "seconds": seconds, "processor_seconds": processor}

    def answers(self, path):
        """The logits of a file's batches."""
        with np.load(path) as arrays:
            batches = list(arrays["images"])
        scheduler = aidge_core.SequentialScheduler(self.graph)
        return [np.array(scheduler.forward(data=[tensor(images)])[0]).tolist() for images in batches]

    def weights(self):
        """Unequal values of each weight as its layer sees it, and the types of the nodes, in the graph's order."""
        nodes = self.graph.get_ordered_nodes()
        quantized = [node for node in nodes if node.type() == "DoReFa"]
        levels = [len(np.unique(np.round(np.array(node.get_operator().get_output(0)), 5))) for node in quantized]
        return {"levels": levels, "nodes": [node.type() for node in nodes if node.type() != "Producer"]}

    def transform(self):
        """From training to integers held in floats; the integers of each kernel, all of its distinct ones.

        Batch norms that change nothing come first, because without any the transform fails on the CPU: where it fuses
        multipliers into quantizers. All becomes float32 again, because the CPU has no product of what is left.
        """
        aidge_learning.insert_batchnorm_nodes(self.graph, epsilon=0.0)
        aidge_learning.init_batchnorm_producers(self.graph)
        self.graph.set_backend(BACKEND)
        aidge_quantization.sat.post_training_transform(self.graph, False)
        self.graph.set_datatype(aidge_core.dtype.float32)
        self.graph.set_backend(BACKEND)
        constants = [node for node in self.graph.get_nodes() if node.type() == "Producer"]
        values = {node.name(): np.array(node.get_operator().get_output(0)) for node in constants}
        return {name: np.unique(array).tolist() for name, array in values.items() if array.ndim > 1}

    def export(self, way):
        """What one way to a file says: "done", or the error's first words."""
        image = tensor(np.zeros((1, 3, 32, 32), np.float32))
        try:
            with tempfile.TemporaryDirectory() as folder:
                if way == "onnx":
                    aidge_onnx.export_onnx(self.graph, f"{folder}/network.onnx")
                elif way in ("float32", "int8"):
                    export(self.graph.clone(), ExportConfig(export_folder=folder, dtype=way), [image])
                elif way == "int8, quantized already":
                    config = ExportConfig(export_folder=folder, dtype="int8", model_prequantized=True)
                    export(self.graph.clone(), config, [image])
                else:
                    aidge_quantization.sat.post_training_transform(self.graph.clone(), way == "integers")
        except Exception as error:  # whatever Aidge says is the answer
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"
        return "done"


def main():
    """Answers each line."""
    aidge_core.Log.set_console_level(aidge_core.Level.Fatal)
    peer = Peer(sys.argv[1])
    for line in sys.stdin:
        arguments = json.loads(line)
        answer = getattr(peer, arguments.pop("do"))(**arguments)
        print(f"\nANSWER {json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    main()
