#!/usr/bin/env python3
"""Packs everything that the device suite and the benchmarks run into one archive: `make pack-gpu`. It is for a machine that has
a GPU, CUDA's libraries and Python, but not the packages that a build needs. There, in a copy of the sources:

    mkdir build-gpu && tar -xJf atedm-gpu.tar.xz -C build-gpu
    python3 tests/device/check_gpu.py --no-build

It has programs, the backend, the tests' model, and in lib/ the shared libraries that they need. It lacks the libraries that
the other machine must have: glibc (of this machine's version or newer), gcc's libraries and CUDA's.
"""
import pathlib
import re
import subprocess
import sys
import tarfile

import device

PROGRAMS = ("cli/atedm", "server/atedmd", "server/atedm-worker", "tests/parity/parity", "tests/golden/stages",
            "tests/golden/golden")
OWN = re.compile(r"ld-linux|lib(c|m|dl|rt|pthread|resolv|stdc\+\+|gcc_s|cuda(rt)?|cublas(Lt)?|cudnn\w*|nvidia-ml|nvrtc)\.so")


def libraries(file):
    """{name: path} of the libraries that the dynamic linker loads with it, without those that the machine must have."""
    found = {}
    for line in subprocess.check_output(("ldd", file), text=True).splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if not arrow or OWN.match(name):
            continue
        if rest == "not found":
            sys.exit(f"pack.py: {file} needs {name}, which is not here")
        found[name] = rest.rpartition(" (")[0]
    return found


def files(build, is_emulated):
    """{name in the archive: path}."""
    packed = {name: build / name for name in PROGRAMS}
    # The backend. The emulated one also opens these by name: cuDNN, NVML.
    beside = device.backend_file(build, is_emulated).parent.glob("*.so*")
    packed.update((str(path.relative_to(build)), path) for path in beside if path.is_file())
    timeline = build / device.TIMELINE  # is there only where CUPTI is
    if timeline.exists():
        packed[device.TIMELINE] = timeline
    needed = {}
    for path in packed.values():
        needed.update(libraries(path))
    model = device.test_model(build, is_emulated)
    packed[str(model.relative_to(build))] = model
    packed.update((f"{device.LIBRARIES}/{name}", path) for name, path in needed.items())
    return packed


def without_owner(info):
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def main():
    parser = device.parser(__doc__)
    parser.add_argument("--emulated", action="store_true", help="with the emulated backend in place of the real one")
    parser.add_argument("-o", "--output", type=pathlib.Path, help="default atedm-gpu.tar.xz in the build folder")
    options = parser.parse_args()
    if not options.no_build and not device.build_steps(device.Steps(), options.build):
        return 1
    output = options.output or options.build / "atedm-gpu.tar.xz"
    with tarfile.open(output, "w:xz", preset=1, dereference=True) as archive:
        for name, path in sorted(files(options.build, options.emulated).items()):
            archive.add(path, name, filter=without_owner)
    print(f"written: {output}, {output.stat().st_size >> 20} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
