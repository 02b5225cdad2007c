#!/usr/bin/env python3
"""Checks that a file opens with a comment about its purpose, that it has no more than about 600 lines, and a function no more
than about 80.

usage: length.py [ROOT]
"""
import re

import sources

FILE_LINES = 620
FUNCTION_LINES = 80

# With braces on a line of their own (Linux style, which clang-format enforces), a function's body
# starts at a "{" in the first column and ends at the next "}" there.
BODY = re.compile(r"^\{$(.*?)^\}", re.MULTILINE | re.DOTALL)
# A namespace also has such a brace, since its contents are not indented; that brace opens no body.
NAMESPACE = re.compile(r"^(namespace\b[^{;\n]*\n)\{$", re.MULTILINE)
NAME = re.compile(r"(\w+)\s*\([^{};]*\)[^{};]*\Z")


def check(root):
    problems = []
    for relative in sources.c_files(root):
        text = (root / relative).read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > FILE_LINES:
            problems.append(f"{relative}:1: {lines} lines, more than {FILE_LINES}")
        if not text.startswith(("//", "/*")):
            problems.append(f"{relative}:1: does not open with what it is for")
        code = NAMESPACE.sub(r"\1 ", sources.bare_code(text))
        for body in BODY.finditer(code):
            length = body.group(0).count("\n") + 1
            if length > FUNCTION_LINES:
                name = NAME.search(code[: body.start()].rstrip())
                line = code.count("\n", 0, body.start()) + 1
                problems.append(
                    f"{relative}:{line}: {name.group(1) if name else 'a body'} has {length} lines, "
                    f"more than {FUNCTION_LINES}"
                )
    return problems


if __name__ == "__main__":
    sources.run(check, "lengths")
