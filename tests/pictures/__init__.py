"""The pictures of the documentation: real runs of the command line, and a diagram.

``python -m tests.pictures`` draws them.
"""

from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
