"""Checkpoints of the golden models: one file with all of a model's weights."""
import json
import pathlib
import struct

from cli_common import read_safetensors

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden/data"
ELEMENT = {"F16": 2, "BF16": 2, "F32": 4, "I64": 8}


def transposed(tensor):
    dtype, (rows, columns), data = tensor
    size = ELEMENT[dtype]
    cells = [data[i:i + size] for i in range(0, len(data), size)]
    return dtype, [columns, rows], b"".join(cells[k * columns + i] for i in range(columns) for k in range(rows))


def in_checkpoint(model):
    """The model's parameters as {name: (dtype, shape, bytes)} of a checkpoint."""
    checkpoint, thirds = {}, {}
    for component, places in json.loads((GOLDEN / "checkpoint.json").read_text())[model].items():
        tensors = {}
        for file in sorted((GOLDEN / "models" / model / component).glob("*.safetensors")):
            tensors |= read_safetensors(file)
        for name, (where, form) in places.items():
            dtype, shape, data = tensors[name]
            if form.endswith("third"):
                thirds.setdefault(where, {})[form] = (dtype, shape, data)
            elif form == "transposed":
                checkpoint[where] = transposed((dtype, shape, data))
            elif form == "pointwise" and len(shape) == 2:
                checkpoint[where] = (dtype, [*shape, 1, 1], data)
            else:
                checkpoint[where] = (dtype, shape, data)
    for where, parts in thirds.items():
        parts = [parts[form] for form in ("first third", "second third", "last third")]
        dtype, shape, _ = parts[0]
        checkpoint[where] = (dtype, [3 * shape[0], *shape[1:]], b"".join(data for _, _, data in parts))
    return checkpoint


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
