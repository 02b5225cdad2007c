"""What is left of the environment, for a test and for all that it starts: of our variables only those of tests, and what is named
in ATEDM_TEST_KEEP. Whatever else a shell exports changes no result: atedmd takes each option as ATEDM_OPTION too, and the cuda
backend has variables of its own. To be imported before anything that reads them.
"""
import os

OF_TESTS = {"ATEDM", "ATEDMD", "ATEDM_BUILD", "ATEDM_BUILD_DIR", "ATEDM_FAULT_INJECTION", "ATEDM_SOURCE_DIR"}
KEPT = OF_TESTS | set(os.environ.get("ATEDM_TEST_KEEP", "").split())

for name in list(os.environ):
    if name.startswith("ATEDM") and not name.startswith("ATEDM_TEST_") and name not in KEPT:
        del os.environ[name]
