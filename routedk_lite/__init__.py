"""Train LoRA experts on distilled knowledge, fuse them with an input-aware router, measure the bundles.

`import routedk_lite as rdk` is the door: it offers the names that most users need, each loaded when it is first used.
Behind it are rooms, from the ground up: `data`, `teacher`, `student`, `fusion`, `answers`, `analysis`, `study`,
`report` and `book`. A room imports from the rooms before it, never from a later one.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

DOOR = {
    "config": ("get_profile",),
    "data.sessions": ("Session",),
    "data.domains": ("load_domain",),
    "data.own": ("load_sessions",),
    "data.prompts": ("build_prompt",),
    "data.parsing": ("parse_answer",),
    "data.metrics": ("evaluate",),
    "teacher.knowledge": ("load_knowledge",),
    "student.backbone": ("Student", "load_student"),
    "student.experts": ("load_expert", "train_expert"),
    "fusion.fusion": ("Average", "Dynamic", "OneHot", "Static", "Ties"),
    "fusion.routed": ("RoutedModel",),
    "fusion.routing": ("train_fusion",),
    "answers.decoding": ("greedy_answers", "sample_bundles"),
    "answers.voting": ("vote",),
    "study.records": ("load_all",),
    "book.notebook": ("setup",),
    "book.explorer.static": ("RouterExplorer",),
}
"""The names at the door, by the module that holds them."""

_HOME = {name: module for module, names in DOOR.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; the door offers {', '.join(__all__)}. "
            "Other names are imported from their rooms, for example `from routedk_lite.fusion import layers`."
        )
    value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
