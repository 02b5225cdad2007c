"""Installs the build with `meson install` into a temporary folder."""
import os
import pathlib
import subprocess
import tempfile

BUILD = os.environ["ATEDM_BUILD_DIR"]


class Installation:
    """`with Installation() as root:` makes root / "usr/local/sbin/atedmd" and the others; the prefix is the build folder's."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="atedmd-")
        subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", self.folder.name],
                       check=True, stdout=subprocess.DEVNULL)
        return pathlib.Path(self.folder.name)

    def __exit__(self, *_):
        self.folder.cleanup()


def find(root, name):
    """The only file of this name, whatever the prefix."""
    found = [path for path in root.rglob(name) if path.is_file() and "models" not in path.parts]
    if len(found) != 1:
        raise AssertionError(f"{name}: {found}")
    return found[0]
