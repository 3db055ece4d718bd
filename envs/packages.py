"""From a pinned source distribution to the tree that an image holds.

The hash is checked by us before anything is unpacked, whoever delivered the file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from contextrl.envs.errors import MutationError
from contextrl.envs.leases import leased_folder
from contextrl.envs.package_specs import PackageSpec
from contextrl.envs.source_prep import prepare_source

logger = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT_S = 300


def fetch_sdist(spec: PackageSpec, cache: Path) -> Path:
    """The sdist inside `cache`, downloaded by pip if absent; its sha256 is the one of `spec`.

    pip goes to the index, mirror or proxy that it is configured for. It refuses another hash
    before it runs the sdist's own set-up script (which `pip download` does, for the metadata).

    Raises:
        MutationError: nothing to download from, or the file has another hash.
    """
    target = cache / spec.sdist_filename
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with leased_folder(".download-", cache) as folder:
            downloaded = _pip_download(spec, Path(folder))
            _check_hash(spec, downloaded)
            os.replace(downloaded, target)
    _check_hash(spec, target)
    return target


def extract_sdist(archive: Path, folder: Path) -> Path:
    """Unpack into `folder` and return the single top-level folder of the archive.

    Links that leave `folder`, devices and absolute names are refused (tarfile's data filter).
    """
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise MutationError(f"{archive.name}: expected a source archive, found: {error}") from error
    roots = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(roots) != 1:
        raise MutationError(f"{archive.name}: expected one top-level folder, found {len(roots)}")
    return roots[0]


def prepare_tree(spec: PackageSpec, archive: Path, scratch: Path) -> Path:
    """The part of the sdist that the image holds, with its sources prepared (`source_prep`)."""
    (scratch / "sdist").mkdir()
    tree = scratch / "tree"
    _copy_kept(extract_sdist(archive, scratch / "sdist"), spec.keep, tree)
    for file in spec.sources:
        path = tree / file
        if not path.is_file():
            raise MutationError(f"{spec.name}: expected the source file {file}, found nothing")
        text = path.read_text(encoding="utf-8")
        path.write_text(prepare_source(text, name=file), encoding="utf-8")
    return tree


def tree_digest(tree: Path) -> str:
    """Forty hex digits that depend on names and contents alone; stands for a commit."""
    digest = hashlib.sha1(usedforsecurity=False)
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(tree).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _pip_download(spec: PackageSpec, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    pin = f"{spec.name}=={spec.version} --hash=sha256:{spec.sdist_sha256}\n"
    requirements.write_text(pin, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--require-hashes", "--no-deps", "--no-binary", ":all:"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    logger.info("downloading %s %s", spec.name, spec.version)
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise MutationError(
            f"{spec.name} {spec.version}: pip download failed ({last}); "
            f"check pip's index or put {spec.sdist_filename} into the download folder"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MutationError(f"{spec.name} {spec.version}: pip download: {error}") from error
    downloaded = folder / spec.sdist_filename
    if not downloaded.exists():
        found = ", ".join(sorted(path.name for path in folder.glob("*.tar.gz"))) or "no archive"
        raise MutationError(f"pip download: expected {spec.sdist_filename}, found {found}")
    return downloaded


def _check_hash(spec: PackageSpec, archive: Path) -> None:
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != spec.sdist_sha256:
        raise MutationError(
            f"{archive}: expected sha256 {spec.sdist_sha256}, found {found}; delete the file"
        )


def _copy_kept(root: Path, keep: tuple[str, ...], target: Path) -> None:
    """`target` holds the named top-level entries of the unpacked sdist and nothing else."""
    target.mkdir(parents=True)
    for name in keep:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copyfile(source, target / name)
        else:
            raise MutationError(f"{root.name}: expected {name} in the archive, found nothing")
