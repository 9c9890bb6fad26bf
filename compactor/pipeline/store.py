"""Stage results by content: a build that was killed, or is repeated, continues from what is already done."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock

from compactor.ir import archive
from compactor.ir.program import Program
from compactor.pipeline.disk import file_hash, sync, write_json

SCHEMA = 1
_LIMIT_BYTES = 20 << 30
_LIMIT_DAYS = 30.0
_ABANDONED_DAYS = 1.0
_REMEDY = "free some space, or point --store (or COMPACTOR_STORE) to another disk"


def default_root() -> Path:
    """``COMPACTOR_STORE``, or the user's cache folder."""
    from platformdirs import user_cache_path

    given = os.environ.get("COMPACTOR_STORE")
    return Path(given).expanduser() if given else user_cache_path("compactor")


def key_of(parts: Mapping[str, Any]) -> str:
    """sha256 over everything that a result depends on, given as JSON-able parts."""
    text = json.dumps({"schema": SCHEMA, **parts}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Stored:
    """A stage result as it came back from the store: the Program and the stage's record."""

    program: Program
    record: dict[str, Any]


class Store:
    """A folder of stage results.

    ``results/KEY/`` holds ``program.pt2`` and ``result.json`` (with the hash of the archive), ``work/KEY/`` the
    checkpoints of a stage that is under way, ``outputs`` what teachers said of samples. Only whole results are ever
    visible.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else default_root()
        self.remedy = _REMEDY

    def lock(self, key: str) -> BaseFileLock:
        """Held while a stage is computed, so that two builds never compute the same one at once."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{key}.lock")

    def workspace(self, key: str) -> Path:
        """The stage's own folder for checkpoints: survives a kill, goes when the result is stored."""
        folder = self.root / "work" / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def outputs(self) -> Path:
        """The folder of teachers' outputs, which all stages and builds share."""
        folder = self.root / "outputs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def clear_workspace(self, key: str) -> None:
        """Drop the stage's checkpoints."""
        shutil.rmtree(self.root / "work" / key, ignore_errors=True)

    def load(self, key: str) -> Stored | None:
        """The result under a key, or None. A damaged one is removed, so that it is computed again."""
        folder = self._folder(key)
        if not folder.is_dir():
            return None
        record = _read_record(folder)
        if record is None:
            shutil.rmtree(folder)
            return None
        os.utime(folder)
        return Stored(archive.load(folder / "program.pt2"), record)

    def save(self, key: str, program: Program, record: dict[str, Any]) -> Stored:
        """Store a result and return it as `load` would: builds go on from the same bytes, resumed or not."""
        temporary = self.root / "tmp" / f"{key}.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            archive.save(program, temporary / "program.pt2")
            write_json(temporary / "result.json", {"sha256": file_hash(temporary / "program.pt2"), "record": record})
            folder = self._folder(key)
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
            sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self.clear_workspace(key)
        return Stored(archive.load(folder / "program.pt2"), record)

    def _folder(self, key: str) -> Path:
        return self.root / "results" / key[:2] / key

    def prune(self, limit_bytes: int = _LIMIT_BYTES, limit_days: float = _LIMIT_DAYS) -> list[Path]:
        """Remove what was not used for ``limit_days``, then the least recently used beyond ``limit_bytes``.

        Returns what was removed. Temporary folders and checkpoints that nobody came back to go too.
        """
        now = time.time()
        doomed = [f for f in self.root.glob("tmp/*") if _age_days(f, now) > _ABANDONED_DAYS]
        doomed += [f for f in self.root.glob("work/*") if _age_days(f, now) > limit_days]
        total = 0
        kept = [*self.root.glob("results/*/*"), *self.root.glob("outputs/*.outputs")]
        for entry in sorted(kept, key=lambda f: -f.stat().st_mtime):
            total += sum(f.stat().st_size for f in (entry.iterdir() if entry.is_dir() else [entry]))
            if total > limit_bytes or _age_days(entry, now) > limit_days:
                doomed.append(entry)
        for entry in doomed:
            _remove(entry)
        return doomed


def _remove(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _age_days(folder: Path, now: float) -> float:
    return (now - folder.stat().st_mtime) / 86400


def _read_record(folder: Path) -> dict[str, Any] | None:
    """The stage record, if the entry is whole and undamaged."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        whole = result["sha256"] == file_hash(folder / "program.pt2")
        record: dict[str, Any] = result["record"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return record if whole else None
