"""The pinned npm packages of the mini world: animated emoji, and their names and keywords.

Art: Microsoft's Fluent Emoji (MIT), animated by LobeHub's packages (MIT). Keywords: emojilib (MIT).
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from microcinema_core.files.archives import open_tar, read_tar_member
from microcinema_core.files.downloads import download_url, fetch_pinned

from .motion_split import SKIN_TONES

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """An npm package, pinned by version and by the tarball's sha256."""

    name: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The tarball's name, as `npm pack` writes it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def registry_path(self) -> str:
        """The tarball's path below the registry's address."""
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
_KEYWORD_FILE = "package/dist/emoji-en-US.json"
_PLAIN_WORDS = re.compile(r"[a-z0-9][a-z0-9 '-]*")


def fetch(package: Package, downloads: Path) -> Path:
    """Return the package's tarball in `downloads`, fetched unless it is there; its hash is checked either way.

    Raises:
        ValueError: the registry served a file with another hash.
        OSError: the download failed.
    """
    what = f"{package.name} {package.version}"
    return fetch_pinned(downloads / package.file_name, what, package.sha256, partial(_download, package))


def _download(package: Package, folder: Path) -> Path:
    if npm := shutil.which("npm"):
        command = [npm, "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode == 0 and (folder / package.file_name).exists():
            return folder / package.file_name
        logger.warning(
            "npm pack %s failed (%s); downloading from the registry directly",
            package.name,
            done.stderr.strip(),
        )
    path = folder / package.file_name
    path.unlink(missing_ok=True)  # what a failed npm may have left
    download_url(f"{_registry(npm)}/{package.registry_path}", path)
    return path


def _registry(npm: str | None) -> str:
    """Return the address in NPM_CONFIG_REGISTRY, else the one that npm is configured with."""
    address = os.environ.get("NPM_CONFIG_REGISTRY") or ""
    if not address and npm:
        command = [npm, "config", "get", "registry"]
        address = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if not address.startswith(("https://", "http://")):
        raise OSError("the art comes as npm packages: install npm, or set NPM_CONFIG_REGISTRY to a registry")
    return address.rstrip("/")


@dataclass(frozen=True)
class EmojiWords:
    """A name such as `man running`, and further keywords, all in lower case."""

    name: str
    keywords: tuple[str, ...]


def read_words(tarball: Path) -> dict[str, EmojiWords]:
    """Read the name and keywords of every emoji from emojilib's tarball, by `lookup_key`.

    Raises:
        ValueError: the tarball is broken or unsafe, or does not hold the keyword file.
    """
    with open_tar(tarball) as archive:
        content = read_tar_member(archive, _KEYWORD_FILE)
    try:
        entries: dict[str, list[str]] = json.loads(content)
    except ValueError as error:
        raise ValueError(
            f"{tarball} holds no words in {_KEYWORD_FILE} ({error}); delete it, so that it is fetched again"
        ) from error
    return {
        lookup_key("-".join(f"{ord(char):x}" for char in emoji)): _clean(words)
        for emoji, words in entries.items()
    }


def lookup_key(codepoints: str) -> str:
    """Return code points without presentation selectors, skin tones and leading zeros; tags get their end tag."""
    points = codepoints.lower().replace("_", "-").split("-")
    if any(point.startswith("e00") for point in points) and points[-1] != "e007f":
        points.append("e007f")
    return "-".join(f"{int(p, 16):x}" for p in points if p != "fe0f" and p not in SKIN_TONES)


def _clean(words: list[str]) -> EmojiWords:
    """Keep plain words only: no emoticons such as ':D', no punctuation that a prompt parser would interpret."""
    plain = [word.lower().replace("_", " ").replace("’", "'").strip() for word in words]
    name = re.sub(r"\b(\w+) s\b", r"\1's", re.sub(r"[^a-z0-9 '-]", "", plain[0]).strip())
    keywords = [word for word in plain[1:] if _PLAIN_WORDS.fullmatch(word) and word != name]
    return EmojiWords(name, tuple(dict.fromkeys(keywords)))
