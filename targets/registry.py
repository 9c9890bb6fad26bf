"""Finds targets by name, alias or profile file: the object behind the entry point ``compactor.targets: profiles``."""

import difflib
from functools import cache
from pathlib import Path

from compactor.errors import UnsupportedError
from compactor.targets.device import ProfileTarget
from compactor.targets.profile import Profile, builtin_profiles, read


class Profiles:
    """All profiles that come with the package, and users' profile files."""

    def names(self) -> list[str]:
        """Names of the built-in targets, sorted, without aliases."""
        return sorted(builtin_profiles())

    def resolve(self, name: str) -> ProfileTarget:
        """The target of a name, an alias (case and underscores do not matter), or the path of a ``.toml`` profile.

        Raises `UnsupportedError` that lists close and known names, or `InputError` naming file and field.
        """
        key = name.strip().lower().replace("_", "-")
        known = _index()
        if key in known:
            return ProfileTarget(known[key])
        if name.endswith(".toml") or Path(name).is_file():
            return ProfileTarget(read(Path(name)))
        close = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise UnsupportedError(
            f"unknown target {name!r}", f"{hint}known: {', '.join(self.names())}; or give the path of a .toml profile"
        )


@cache
def _index() -> dict[str, Profile]:
    profiles = builtin_profiles().values()
    return {key: p for p in profiles for key in (p.name, *p.aliases)}


profiles = Profiles()
