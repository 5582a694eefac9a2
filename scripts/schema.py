"""Make prototxt/schema/caffe_pb2.py of caffe.proto: `python scripts/schema.py`, with grpcio-tools installed.

Only the serialized descriptor and the two builder calls are written. What protoc adds (a check of the runtime's version,
tables for the pure-Python runtime) would tie the file to one protobuf release.
"""

import ast
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROTO = "prototxt/schema/caffe.proto"
TARGET = ROOT / "prototxt/schema/caffe_pb2.py"

MODULE = '''"""Caffe's messages as Python classes. Made from caffe.proto by scripts/schema.py; edit that file, not this one."""

from google.protobuf import descriptor_pb2 as _needed_first  # noqa: F401  the option `fork` extends its FieldOptions
from google.protobuf import descriptor_pool
from google.protobuf.internal import builder

DESCRIPTOR = descriptor_pool.Default().AddSerializedFile(
    {literal}
)

builder.BuildMessageAndEnumDescriptors(DESCRIPTOR, globals())
builder.BuildTopDescriptorsAndMessages(DESCRIPTOR, "prototxt.schema.caffe_pb2", globals())
'''


def compile_proto() -> bytes:
    """The serialized FileDescriptorProto of caffe.proto, by protoc."""
    from google.protobuf import descriptor_pb2
    from grpc_tools import protoc

    include = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "caffe.desc"
        code = protoc.main(["protoc", f"-I{ROOT}", f"-I{include}", f"--descriptor_set_out={out}", PROTO])
        if code:
            raise SystemExit(code)
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0].SerializeToString()


def written() -> bytes:
    """The serialized FileDescriptorProto that stands in caffe_pb2.py."""
    constants = [node.value for node in ast.walk(ast.parse(TARGET.read_text())) if isinstance(node, ast.Constant)]
    return next(value for value in constants if isinstance(value, bytes))


def main() -> None:
    serialized = compile_proto()
    lines = [repr(serialized[i : i + 90]) for i in range(0, len(serialized), 90)]
    TARGET.write_text(MODULE.format(literal="\n    ".join(lines)))


if __name__ == "__main__":
    main()
