#!/usr/bin/env python3
"""Tests the lint programs on small source trees made for this: they find the problems that they should find, and no others."""
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import banned
import headers
import includes
import length
import sources
import summary
import tidy


class Tree(unittest.TestCase):
    """A temporary tree of sources."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)

    def write(self, path, text):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


class Includes(Tree):
    def setUp(self):
        super().setUp()
        for path in ("core/base/status.h", "core/unet.h", "kernels/kernels.h", "kernels/backend.h",
                     "server/http.h"):
            self.write(path, "// A header.\n")

    def problems(self, path, line):
        self.write(path, f"// A file.\n{line}\n")
        return includes.check(self.root)

    def test_downward_is_fine(self):
        self.assertEqual([], self.problems("core/a.c", '#include "core/base/status.h"'))
        self.assertEqual([], self.problems("server/a.c", '#include "core/unet.h"'))
        self.assertEqual([], self.problems("kernels/cpu/a.c", '#include <oneapi/dnnl/dnnl.h>'))

    def test_upward_is_found(self):
        self.assertEqual(["kernels/a.c:2: kernels/ may not use core/unet.h"],
                         self.problems("kernels/a.c", '#include "core/unet.h"'))

    def test_base_uses_nothing(self):
        self.assertEqual(1, len(self.problems("core/base/a.c", '#include "core/unet.h"')))

    def test_private_header_is_found(self):
        self.assertEqual(1, len(self.problems("core/a.c", '#include "kernels/backend.h"')))

    def test_path_is_from_the_root(self):
        self.assertEqual(1, len(self.problems("core/a.c", '#include "unet.h"')))

    def test_library_in_the_wrong_folder(self):
        for path, header in (("core/a.c", "uv.h"), ("kernels/a.c", "jansson.h"),
                             ("core/base/a.c", "jansson.h"), ("core/unet.c", "png.h"),
                             ("server/a.c", "oneapi/dnnl/dnnl.h"), ("kernels/a.c", "cuda_runtime.h")):
            with self.subTest(path=path):
                problems = self.problems(path, f"#include <{header}>")
                self.assertEqual(1, len(problems), problems)
                self.assertIn(f"{path}:2:", problems[0])
                (self.root / path).unlink()


class Banned(Tree):
    def problems(self, path, code):
        self.write(path, code)
        return banned.check(self.root)

    def test_banned_call(self):
        problems = self.problems("server/a.c", "void f(char *a)\n{\n    strcpy(a, a);\n}\n")
        self.assertEqual(1, len(problems))
        self.assertTrue(problems[0].startswith("server/a.c:3: strcpy()"))

    def test_not_in_comments_strings_and_longer_names(self):
        self.assertEqual([], self.problems(
            "server/a.c", '// strcpy(a)\nconst char *s = "gets(x)";\nint x = my_strcpy(a);\n'))

    def test_library_neither_prints_nor_exits(self):
        self.assertEqual(2, len(self.problems("core/a.c", "void f(void) { printf(s); exit(1); }\n")))

    def test_program_may_print(self):
        self.assertEqual([], self.problems("cli/a.c", "void f(void) { printf(s); }\n"))


class Length(Tree):
    def test_long_file(self):
        self.write("core/a.c", "// A file.\n" + "int x;\n" * length.FILE_LINES)
        self.assertEqual(1, len(length.check(self.root)))

    def test_long_function(self):
        body = "    x();\n" * length.FUNCTION_LINES
        self.write("core/a.c", "// A file.\nvoid f(int a,\n       int b)\n{\n" + body + "}\n")
        problems = length.check(self.root)
        self.assertEqual(1, len(problems))
        self.assertIn(": f has", problems[0])

    def test_namespace_is_no_function(self):
        body = "void f(void)\n{\n    x();\n}\n" * length.FUNCTION_LINES
        self.write("kernels/a.cu", "// A file.\nnamespace\n{\n" + body + "} // namespace\n")
        self.assertEqual([], length.check(self.root))

    def test_long_function_in_a_namespace(self):
        body = "    x();\n" * length.FUNCTION_LINES
        self.write("kernels/a.cu", "// A file.\nnamespace\n{\nvoid f(void)\n{\n" + body + "}\n}\n")
        self.assertEqual(1, len(length.check(self.root)))

    def test_opening_comment(self):
        self.write("core/a.c", "int x;\n")
        self.assertEqual(1, len(length.check(self.root)))

    def test_short_file(self):
        self.write("core/a.c", "// A file.\nvoid f(void)\n{\n}\n")
        self.assertEqual([], length.check(self.root))


class Headers(Tree):
    def test_header_that_needs_another(self):
        guard = "#ifndef ATEDM_X\n#define ATEDM_X\n"
        self.write("core/a.h", f"// A header.\n{guard}struct s {{ size_t n; }};\n#endif\n")
        self.write("core/b.h", f"// A header.\n{guard}#include <stddef.h>\nsize_t f(void);\n#endif\n")
        self.write("core/c.h", "// Loops: a template that c.c includes.\nstatic T f(void);\n")
        self.write("core/d.h", "// A header.\nint f(void);\n")
        problems = headers.check(self.root)
        self.assertEqual(2, len(problems), problems)
        self.assertTrue(problems[0].startswith("core/a.h:1: does not compile alone"))
        self.assertEqual("core/d.h:1: no include guard", problems[1])


@unittest.skipUnless(shutil.which(tidy.PROGRAM), f"{tidy.PROGRAM} is not installed")
class Tidy(Tree):
    def problems(self, code, *flags):
        """The problems of a file that is compiled once with each of the flags."""
        self.write(".clang-tidy", (sources.ROOT / ".clang-tidy").read_text(encoding="utf-8"))
        self.write("tests/a.c", code)
        entries = [{"directory": str(self.root), "file": "tests/a.c", "command": f"cc {flag} -o {i}.o -c tests/a.c"}
                   for i, flag in enumerate(flags)]
        self.write("compile_commands.json", json.dumps(entries))
        (path, files), = tidy.commands(self.root).items()
        self.entries = len(files)
        return tidy.tidy(str(self.root), path)

    def test_behind_assertions(self):
        """A problem that an assertion rules out is not reported; any other one is, even after a hundred assertions."""
        one = "    cr_assert_not_null(p, \"%d\", 1);\n"
        code = ("// A test.\n#include <criterion/criterion.h>\nint any(void);\nTest(a, b)\n{\n    int x, *p = any() ? &x : NULL;\n" +
                "    cr_assert_gt(any(), 1, \"%d\", 1);\n" * 100 + one + "    *p = 1;\n}\n")
        self.assertIsNone(self.problems(code, "-O1"))
        self.assertIn("core.NullDereference", self.problems(code.replace(one, ""), "-O1"))

    def test_each_shape_of_a_file_once(self):
        code = "// A file.\nint f(int *p);\nint f(int *p)\n{\n#ifdef ATEDM_BAD\n    p = 0;\n#endif\n    return *p;\n}\n"
        self.assertIsNone(self.problems(code, "-O1", "-O2 -I."))
        self.assertEqual(1, self.entries)
        self.assertIn("core.NullDereference", self.problems(code, "-O1", "-O1 -DATEDM_BAD"))
        self.assertEqual(2, self.entries)


class Summary(unittest.TestCase):
    """The closing line counts the tests that ran."""

    def count(self, result, stdout="", stderr=""):
        return summary.counts({"result": result, "stdout": stdout, "stderr": stderr})

    def test_plain_program(self):
        self.assertEqual((1, 0, 0), self.count("OK"))
        self.assertEqual((0, 1, 0), self.count("FAIL"))
        self.assertEqual((0, 1, 0), self.count("TIMEOUT"))
        self.assertEqual((0, 0, 1), self.count("SKIP"))

    def test_criterion(self):
        line = "[\x1b[0;34m====\x1b[0m] Synthesis: Tested: 5 | Passing: 3 | Failing: 2 | Crashing: 1"
        self.assertEqual((3, 2, 0), self.count("FAIL", stderr=line))

    def test_inner_summary(self):
        self.assertEqual((12, 0, 2), self.count("OK", stdout="ok 1\n12 passed, 0 failed, 2 skipped\n"))

    def test_failed_program_counts_as_failed(self):
        self.assertEqual((12, 1, 0), self.count("FAIL", stdout="12 passed, 0 failed\n"))

    def test_failures_count_whatever_the_exit_status(self):
        self.assertEqual((3, 1, 0), self.count("OK", stdout="3 passed, 1 failed\n"))


if __name__ == "__main__":
    unittest.main()
