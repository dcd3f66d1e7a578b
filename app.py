"""The page: ``python app.py``, and what a Hugging Face Space runs.

Environment variables choose what it shows and where: docs/hosting.md lists them.
"""

import sys

from aim.errors import AimError
from aim.settings import Settings

try:
    # before Gradio is imported, which reads the same environment and does not explain itself
    settings = Settings.from_env()
    from aim.ui import build, serve

    demo = build(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        backend=settings.backend,
        replicas=settings.replicas,
        cluster=settings.cluster,
    )
    if __name__ == "__main__":
        serve(demo, mcp_server=settings.mcp)
except AimError as error:
    sys.exit(str(error))
