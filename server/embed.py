#!/usr/bin/env python3
"""Writes server/openapi.json as a C array, so that the daemon has it without a file.

usage: embed.py INPUT OUTPUT
"""
import pathlib
import sys

HEAD = """// {name} as bytes: made by embed.py.
#include "server/openapi.h"

const unsigned char atedm_openapi_text[] = {{
"""
TAIL = """};
const size_t atedm_openapi_text_size = sizeof atedm_openapi_text;
"""
BYTES_A_LINE = 24


def main(source, target):
    data = source.read_bytes()
    lines = [",".join(map(str, data[at:at + BYTES_A_LINE])) + ",\n" for at in range(0, len(data), BYTES_A_LINE)]
    target.write_text(HEAD.format(name=source.name) + "".join(lines) + TAIL, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
