"""Train LoRA experts on distilled knowledge, fuse them with an input-aware router, measure the bundles.

The package is a set of flat modules, one idea each. Import what you need, for example
`from routedk_lite.data.sessions import load_domain`; nothing heavy is loaded before it is used.
"""

from __future__ import annotations

__version__ = "0.1.0"
