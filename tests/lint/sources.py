"""Functions that the lint programs share: the list of C sources, text without comments, reports."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("cli", "config", "core", "kernels", "server", "tests")
HEADERS = (".h", ".hpp", ".cuh")
ALL = (".c", ".cpp", ".cu", *HEADERS)

# A comment, a string or a character constant, whichever starts first.
TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def c_files(root=ROOT, suffixes=ALL):
    """Every C, C++ and CUDA source and header of the project, as paths relative to `root`, sorted."""
    return sorted(
        path.relative_to(root)
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.suffix in suffixes and path.is_file()
    )


def bare_code(text):
    """`text` with blanks in place of comments and of the contents of strings. Line numbers stay the same."""

    def blank(match):
        token = match.group(0)
        if token[0] in "\"'":
            return token[0] + " " * (len(token) - 2) + token[-1]
        return re.sub(r"[^\n]", " ", token)

    return TOKEN.sub(blank, text)


def report(problems, what):
    """Prints the problems ("path:line: text") and returns the exit status."""
    for problem in problems:
        print(problem)
    print(f"{what}: {len(problems)} problem(s)" if problems else f"{what}: nothing found")
    return 1 if problems else 0


def run(check, what):
    """The main program of a check. `check` takes the root of the tree and returns the problems."""
    root = pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    sys.exit(report(check(root), what))
