#!/usr/bin/env python3
"""Writes a file as a C array, to build it into the daemon: NAME.json or NAME.html becomes atedm_NAME_text, declared in server/NAME.h.

usage: embed.py INPUT OUTPUT
"""
import pathlib
import sys

HEAD = """// The bytes of {file}. embed.py makes this file.
#include "server/{name}.h"

const unsigned char atedm_{name}_text[] = {{
"""
TAIL = """}};
const size_t atedm_{name}_text_size = sizeof atedm_{name}_text;
"""
BYTES_A_LINE = 24


def main(source, target):
    data = source.read_bytes()
    lines = [",".join(map(str, data[at:at + BYTES_A_LINE])) + ",\n" for at in range(0, len(data), BYTES_A_LINE)]
    names = {"file": source.name, "name": source.stem}
    target.write_text(HEAD.format(**names) + "".join(lines) + TAIL.format(**names), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
