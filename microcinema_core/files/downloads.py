"""Fetch the pinned npm packages that the mini world is made of.

Art: Microsoft's Fluent Emoji (MIT), animated by LobeHub's packages (MIT). Keywords: emojilib (MIT).
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """One npm package, pinned by version and by the tarball's sha256."""

    name: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def registry_path(self) -> str:
        return f"{self.name}/-/{self.name.split('/')[-1]}-{self.version}.tgz"


EMOJI_PACKAGES = (
    Package(
        "@lobehub/fluent-emoji-anim-1",
        "1.0.0",
        "4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea",
    ),
    Package(
        "@lobehub/fluent-emoji-anim-2",
        "1.0.0",
        "e431da8172e394036c330faa77648d6fbbae1fd3b0be95637c4497c9075019c0",
    ),
    Package(
        "@lobehub/fluent-emoji-anim-3",
        "1.0.0",
        "3624d0c34c819c1794b74ccf6ae9034adff7c4cb6318dd2a645145f0196feb43",
    ),
    Package(
        "@lobehub/fluent-emoji-anim-4",
        "1.0.0",
        "3d4c08f1e321f70808ef4996aba0ab575a9d97b6c56ffffc92cf6161a7836aa3",
    ),
)
KEYWORD_PACKAGE = Package(
    "emojilib", "4.0.3", "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303"
)


def fetch(package: Package, downloads: Path) -> Path:
    """The package's tarball in `downloads`, fetched unless it is there; its hash is checked either way.

    Raises:
        ValueError: the registry gave, or the folder holds, a file with another hash.
        OSError: nothing could be downloaded.
    """
    downloads.mkdir(parents=True, exist_ok=True)
    target = downloads / package.file_name
    if not target.exists():
        logger.info("fetching %s %s", package.name, package.version)
        with tempfile.TemporaryDirectory(dir=downloads) as scratch:
            fetched = _download(package, Path(scratch))
            check_hash(fetched, f"{package.name} {package.version}", package.sha256)
            os.replace(fetched, target)
    else:
        check_hash(target, f"{package.name} {package.version}", package.sha256)
    return target


def _download(package: Package, folder: Path) -> Path:
    if npm := shutil.which("npm"):
        command = [npm, "pack", "--silent", f"{package.name}@{package.version}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode == 0 and (folder / package.file_name).exists():
            return folder / package.file_name
        logger.warning(
            "npm pack %s failed (%s); trying npm's registry itself", package.name, done.stderr.strip()
        )
    path = folder / package.file_name
    address = f"{_registry(npm)}/{package.registry_path}"
    with urllib.request.urlopen(address, timeout=60) as answer, path.open("wb") as file:
        shutil.copyfileobj(answer, file)
    return path


def _registry(npm: str | None) -> str:
    """The address in NPM_CONFIG_REGISTRY, else the one that npm is configured with."""
    address = os.environ.get("NPM_CONFIG_REGISTRY") or ""
    if not address and npm:
        command = [npm, "config", "get", "registry"]
        address = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if not address.startswith(("https://", "http://")):
        raise OSError("the art comes as npm packages: install npm, or set NPM_CONFIG_REGISTRY to a registry")
    return address.rstrip("/")


def check_hash(path: Path, what: str, sha256: str) -> None:
    """ValueError if a download is not the file that was pinned."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise ValueError(
            f"{path} has sha256 {digest.hexdigest()}, but {what} should have {sha256}; delete the file and fetch it "
            "again"
        )
