"""The adversary, `attacks`, under a name that nothing else has: many repositories have a package `attacks` too.

Where `import attacks` finds this library's, both names are of the same modules. Where it finds another package, that
one is left alone, and ours is loaded under this name only.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

PACKAGE = Path(__file__).resolve().parents[1] / "attacks"
SHORT = PACKAGE.name

if TYPE_CHECKING:
    from attacks import *  # noqa: F403


class _SameModules(MetaPathFinder, Loader):
    """Finds `robustrecon.attacks.NAME` as the very module `attacks.NAME`."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        return ModuleSpec(name, self) if name.startswith(f"{__name__}.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(SHORT + spec.name.removeprefix(__name__))
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own_spec  # the import system has put that of the other name there


def _short_name_is_ours() -> bool:
    try:
        spec = importlib.util.find_spec(SHORT)
    except ValueError:  # a module of that name that says nothing of itself
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve().parent == PACKAGE


def _load() -> ModuleType:
    if _short_name_is_ours():
        sys.meta_path.insert(0, _SameModules())
        return importlib.import_module(SHORT)
    spec = importlib.util.spec_from_file_location(
        __name__, PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[__name__] = module
    spec.loader.exec_module(module)
    return module


sys.modules[__name__] = _load()
