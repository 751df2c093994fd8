"""What CI builds for boards, by `tests/cross/cargo`: all that a change must pass. Used by `tests/cross/run` and `tests/lab/pi`."""

import json
import pathlib
import subprocess

# Not a release: that would take ten times as long to build.
PROFILE = ["--profile", "cross-test"]
ARM64 = "aarch64-unknown-linux-gnu"
# Board: target, and the rest of what cargo is told. The last is static because that runs on the very processor of the Pi
# Zero: Debian's C library of armhf needs an ARMv7.
BOARDS = {
    "arm64": (ARM64, ["--no-default-features", "--features", "rppal"]),
    "armv7": ("armv7-unknown-linux-gnueabihf", []),
    "armv6": ("arm-unknown-linux-musleabihf", ["--no-default-features"]),
}


def cargo(board, command, *options):
    """Builds one program, and gives its path."""
    target, features = BOARDS[board]
    command = [pathlib.Path(__file__).with_name("cargo"), target, command, "--quiet", *PROFILE, *features, *options,
               "--message-format", "json-render-diagnostics"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    built = [message["executable"] for message in map(json.loads, lines) if message.get("executable")]
    if len(built) != 1:
        raise SystemExit(f"cargo was to build one program, and built {built}")
    return pathlib.Path(built[0])


def build(board):
    return cargo(board, "build", "--bin", "vigie")


def build_tests(board):
    """The unit tests, as a program."""
    return cargo(board, "test", "--lib", "--no-run")
