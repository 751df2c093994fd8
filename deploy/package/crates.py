"""What is linked into the program, as cargo knows it."""

import json
import pathlib
import subprocess

# Where the sources are, whatever folder a script is called from.
SOURCES = pathlib.Path(__file__).resolve().parents[2]

# Debian's architectures, and the targets that are built for them.
TARGETS = {
    "amd64": "x86_64-unknown-linux-gnu",
    "arm64": "aarch64-unknown-linux-gnu",
    "armhf": "arm-unknown-linux-gnueabihf",
}


def metadata(target):
    """All packages by their ids, the dependencies of each, and the id of our own."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=SOURCES).stdout)
    packages = {package["id"]: package for package in said["packages"]}
    nodes = {node["id"]: node for node in said["resolve"]["nodes"]}
    return packages, nodes, said["resolve"]["root"]


def needs(node):
    """The ids of what a package links, without what is only used to build or test it."""
    normal = (dependency for dependency in node["deps"] if any(kind["kind"] is None for kind in dependency["dep_kinds"]))
    return [dependency["pkg"] for dependency in normal]


def linked(target):
    """The packages that are part of the program on that target, by name."""
    packages, nodes, root = metadata(target)
    seen, waiting = set(), [root]
    while waiting:
        for needed in needs(nodes[waiting.pop()]):
            if needed not in seen:
                seen.add(needed)
                waiting.append(needed)
    return sorted((packages[package] for package in seen), key=lambda package: (package["name"], package["version"]))
