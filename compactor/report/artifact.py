"""`Artifact`: the output folder of a build, written under a temporary name and renamed when whole."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from pydantic import ValidationError

from compactor.backend import Lowered
from compactor.errors import InputError, UsageError
from compactor.report import summary
from compactor.report.manifest import SCHEMA, Manifest

if TYPE_CHECKING:
    from compactor.ir.program import Program

MANIFEST = "manifest.json"
SUMMARY = "summary.txt"
STUDENT = "student.pt2"


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder and its manifest."""

    folder: Path
    manifest: Manifest

    @staticmethod
    def open(folder: str | Path) -> "Artifact":
        """Read and validate the manifest of a folder. Raises `InputError`; file hashes are checked by `damage`."""
        folder = Path(folder)
        return Artifact(folder, _read_manifest(folder))

    def damage(self) -> list[str]:
        """What is wrong with the files: missing, changed, unknown; and a manifest whose content hash is not its own."""
        recorded = self.manifest.files
        found = _hashes(self.folder)
        wrong = [f"{name} is missing" for name in recorded if name not in found]
        wrong += [f"{name} has changed" for name, value in found.items() if recorded.get(name, value) != value]
        wrong += [f"{name} is not of this artifact" for name in found if name not in recorded]
        if self.manifest.content_hash() != self.manifest.content:
            wrong.append(f"{MANIFEST} has changed")
        return wrong

    def require_whole(self) -> None:
        """Raise `InputError` naming the `damage`, if there is any."""
        if damage := self.damage():
            raise InputError(f"{self.folder} is damaged: {'; '.join(damage)}", "copy it again, or build it again")

    def student(self) -> "Program":
        """The compressed Program. Check `damage` first: reading a damaged archive fails in ways of its own."""
        from compactor.ir.archive import load

        return load(self.folder / STUDENT)

    def lowered(self) -> list[Lowered]:
        """The lowered models, ready for `Backend.open`."""
        return [
            Lowered(m.backend, self.folder / m.folder, tuple(m.files), m.precision, dict(m.options))
            for m in self.manifest.lowered
        ]

    def rewrite(self, manifest: Manifest) -> "Artifact":
        """The same files under a new manifest and summary (after figures were measured on the device)."""
        with _locked(self.folder):
            return Artifact(self.folder, _seal(self.folder, manifest))


@dataclass(frozen=True)
class Draft:
    """An artifact in the making: write models into ``folder``, then `finish`."""

    folder: Path
    destination: Path

    def subfolder(self, name: str) -> Path:
        """A fresh, empty folder inside the draft."""
        path = self.folder / name
        path.mkdir(parents=True)
        return path

    def finish(self, manifest: Manifest) -> Artifact:
        """Hash the files, write manifest and summary, and put the whole in place of what was there before."""
        sealed = _seal(self.folder, manifest)
        previous = _beside(self.destination, "previous")
        if self.destination.exists():
            self.destination.rename(previous)
        self.folder.rename(self.destination)
        _sync(self.destination.parent)
        shutil.rmtree(previous, ignore_errors=True)
        return Artifact(self.destination, sealed)


@contextmanager
def draft(destination: str | Path) -> Iterator[Draft]:
    """Reserve an output folder for one build; nothing appears under its name before `Draft.finish`.

    Raises `UsageError` when another build holds the folder, or when it holds something that is not an artifact.
    """
    destination = Path(destination).absolute()
    with _locked(destination):
        previous, partial = _beside(destination, "previous"), _beside(destination, "partial")
        if previous.exists() and not destination.exists():  # killed between the two renames
            previous.rename(destination)
        for stale in (previous, partial):
            shutil.rmtree(stale, ignore_errors=True)
        _check_replaceable(destination)
        partial.mkdir()
        try:
            yield Draft(partial, destination)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


@contextmanager
def _locked(destination: Path) -> Iterator[None]:
    destination = destination.absolute()
    if not destination.name:
        raise UsageError(f"{destination} cannot be an output folder", "give a folder of its own to --output")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(_beside(destination, "lock"), timeout=0)
        lock.acquire()
    except Timeout as error:
        raise UsageError(
            f"another build is writing {destination}", "wait until it is done, or give another folder to --output"
        ) from error
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise UsageError(f"cannot write {destination}: {error}", "give a folder you can write to --output") from error
    try:
        yield
    finally:
        lock.release()


def _check_replaceable(destination: Path) -> None:
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    if not destination.is_dir() or not (destination / MANIFEST).is_file():
        raise UsageError(
            f"{destination} exists and is not an artifact", "give another folder to --output; nothing was touched"
        )


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    remedy = "give the folder that `compactor build --output` wrote, or build it again"
    if not path.is_file():
        raise InputError(f"{folder} is not an artifact: it has no {MANIFEST}", remedy)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            raise InputError(f"{path} has schema {schema!r}, not {SCHEMA}", "use the version that wrote it")
        return Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is not a valid manifest: {where}: {first['msg']}", remedy) from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", remedy) from error


def _seal(folder: Path, manifest: Manifest) -> Manifest:
    manifest = manifest.model_copy(update={"files": _hashes(folder)})
    manifest = manifest.model_copy(update={"content": manifest.content_hash()})
    _write(folder, {SUMMARY: summary.text(manifest), MANIFEST: manifest.to_json()})
    return manifest


def _hashes(folder: Path) -> dict[str, str]:
    """sha256 by relative path of all files but manifest and summary, which hold measured times."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    names = {p.relative_to(folder).as_posix(): p for p in files}
    return {name: _sha256(path) for name, path in names.items() if name not in (MANIFEST, SUMMARY)}


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _write(folder: Path, texts: dict[str, str]) -> None:
    """Write files that belong together: the first is replaced when all of them are on the disk."""
    temporary = {name: folder / f".{name}.{os.getpid()}" for name in texts}
    try:
        for name, text in texts.items():
            with temporary[name].open("w", encoding="utf-8") as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
        for name in texts:
            temporary[name].replace(folder / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
