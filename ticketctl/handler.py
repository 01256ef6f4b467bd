"""The files that ship with the package, ``stack/`` and ``lambda/``, and the handler's functions, loaded once."""

import importlib.util
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import create_ticket


def bundle_root() -> Path:
    """Return the folder with ``stack/`` and ``lambda/``: inside the installed package, or else the checkout."""
    bundled = Path(__file__).parent / "bundled"
    return bundled if bundled.is_dir() else Path(__file__).parent.parent


if TYPE_CHECKING:
    handler = create_ticket
else:
    _loading = threading.Lock()

    def _load():
        """Load ``lambda/create_ticket.py``. An import statement cannot name it: ``lambda`` is a keyword."""
        path = bundle_root() / "lambda" / "create_ticket.py"
        spec = importlib.util.spec_from_file_location("create_ticket", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    def __getattr__(name):
        if name == "handler":
            with _loading:  # loaded twice, its exceptions would be two different classes
                if name not in globals():
                    globals()[name] = _load()
                return globals()[name]
        raise AttributeError(name)
